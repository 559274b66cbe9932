"""What people see of warm servers from the command line, against a fake coordinator."""

import pytest
from cli.commands import Command, Result
from client.fake_coordinator import FakeCoordinator, make_node
from google.protobuf.duration_pb2 import Duration

from runyard.v1 import fleet_pb2

READY = fleet_pb2.WarmServer(
    name="5f2c",
    state=fleet_pb2.WARM_SERVER_STATE_READY,
    state_for=Duration(seconds=250),
    code_locations=["shop", "bakery"],
    mode=fleet_pb2.WARM_MODE_FRAMEWORK,
    python="/usr/bin/python3",
    pid=41,
    rss_bytes=150 << 20,
    forks=3,
    all_forks=12,
    cold_starts=2,
    last_cold_reason="its server is still importing",
)
UNUSABLE = fleet_pb2.WarmServer(
    name="81aa",
    state=fleet_pb2.WARM_SERVER_STATE_UNUSABLE,
    state_for=Duration(seconds=5),
    code_locations=["models"],
    mode=fleet_pb2.WARM_MODE_LOCATION,
    cold_starts=1,
    last_cold_reason="its server is just being started",
    reason="after importing: 3 threads",
)


@pytest.fixture(autouse=True)
def nodes(coordinator: FakeCoordinator) -> None:
    """One with two warm servers, another with one, and one without."""
    coordinator.nodes += [
        make_node("n1", warm_servers=[READY, UNUSABLE]),
        make_node("n2", warm_servers=[READY]),
        make_node("n3"),
    ]


def test_warm_servers_are_listed_of_all_nodes_or_one(runyard: Command) -> None:
    header, *lines = runyard("node", "warm", "list").out.splitlines()
    assert header.split()[:6] == ["NODE", "SERVER", "STATE", "FOR", "MODE", "LOCATIONS"]
    assert header.split()[6:] == ["PID", "MEMORY", "FORKS", "COLD", "WHY", "COLD"]
    assert [line.split()[:2] for line in lines] == [["n1", "5f2c"], ["n1", "81aa"], ["n2", "5f2c"]]
    assert lines[0].split()[2:] == [
        *("ready", "4m10s", "framework", "shop,", "bakery", "41", "150.0", "MiB", "12", "2"),
        *("its", "server", "is", "still", "importing"),
    ]
    assert lines[1].rstrip().endswith("after importing: 3 threads")
    (line,) = runyard("node", "warm", "list", "n2").out.splitlines()[1:]
    assert line.split() == lines[2].split()
    assert runyard("node", "warm", "list", "n3").out == "no warm servers\n"


def test_warm_servers_are_listed_for_scripts_with_their_node(runyard: Command) -> None:
    listed = runyard("node", "warm", "list", "-o", "json").json()
    assert [(each["node"], each["name"], each["state"]) for each in listed] == [
        ("n1", "5f2c", "ready"),
        ("n1", "81aa", "unusable"),
        ("n2", "5f2c", "ready"),
    ]
    first = listed[0]
    assert (first["mode"], first["code_locations"], first["rss_bytes"]) == (
        "framework",
        ["shop", "bakery"],
        150 << 20,
    )
    assert (first["state_for"], first["forks"], first["all_forks"]) == ("250s", 3, 12)


def test_a_node_is_shown_with_its_warm_servers(runyard: Command) -> None:
    shown = runyard("node", "show", "n1").out
    assert "framework" in shown
    assert "after importing: 3 threads" in shown
    assert "warm" not in runyard("node", "show", "n3").out
    assert [each["name"] for each in runyard("node", "show", "n1", "-o", "json").json()["warm_servers"]] == [
        "5f2c",
        "81aa",
    ]


def test_warm_servers_are_made_anew(runyard: Command) -> None:
    assert [runyard("node", "warm", "refresh", *words).out for words in (["n1"], ["n1", "81aa"], ["n3"])] == [
        "node n1 was asked to replace 2 warm servers\n",
        "node n1 was asked to replace 1 warm server\n",
        "node n3 was asked to replace warm servers, but has none\n",
    ]


def test_a_refresh_of_what_is_not_there_fails(runyard: Command) -> None:
    assert runyard("node", "warm", "refresh", "n1", "0000") == Result(
        4, "", "runyard: node n1 has no warm server 0000\n"
    )
    assert runyard("node", "warm", "refresh", "n9").code == 4
