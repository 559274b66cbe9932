"""The command line against a fake coordinator (see `fake_coordinator.py`) over loopback sockets."""

import subprocess
import sys
import threading
import types

import grpc
import pytest
from cli.commands import RUN, SIBLING, Command, Result
from client.fake_coordinator import FakeCoordinator, make_node
from harness.waiting import wait_until

from runyard.v1 import fleet_pb2, placement_pb2, run_pb2

GIB = 1 << 30


@pytest.fixture
def node(coordinator: FakeCoordinator) -> fleet_pb2.Node:
    found = make_node(
        "n1",
        slots=4,
        used=1,
        offer=placement_pb2.Offer(
            labels={"zone": "a", "runyard/os": "linux"},
            drivers=["process"],
            taints=["batch=night"],
            resources={"cpu": 8000, "memory": 31 * GIB, "gpu": 2},
            reserved={"memory": GIB},
        ),
        allocated={"cpu": 500, "memory": 4 * GIB},
        facts=fleet_pb2.NodeFacts(hostname="host1", agent_version="0.0.1", memory_bytes=2**34),
        load=fleet_pb2.NodeLoad(cpu_fraction=0.25, memory_available_bytes=2**33),
    )
    found.last_heard_at.GetCurrentTime()
    coordinator.nodes.append(found)
    return found


# Lists and details


@pytest.mark.usefixtures("orders")
def test_runs_are_listed_with_state_and_time_to_start(runyard: Command) -> None:
    listed = runyard("run", "list")
    assert listed.code == 0
    header, line = listed.out.splitlines()
    assert header.split() == ["RUN", "JOB", "CLUSTER", "NODE", "ATTEMPT", "STATE", "AGE", "START", "MESSAGE"]
    words = line.split()
    assert words[:6] == ["8b1a9953", "orders", "east", "n1", "2", "oom_killed"]
    assert words[7:] == ["2.5s", "killed", "for", "want", "of", "memory"]


def test_a_listing_can_be_narrowed(
    coordinator: FakeCoordinator, runyard: Command, orders: run_pb2.Run
) -> None:
    coordinator.put_run(run_pb2.Run(run_id=SIBLING, phase=run_pb2.PHASE_RUNNING, cluster="west", node="n2"))
    running = runyard("run", "list", "--phase", "running", "--phase", "starting", "-o", "json").json()
    assert [run["run_id"] for run in running] == [SIBLING]
    east = runyard("run", "list", "--cluster", "east", "--node", "n1", "-o", "json").json()
    assert [run["run_id"] for run in east] == [orders.run_id]
    assert len(runyard("run", "list", "--limit", "1", "-o", "json").json()) == 1


def test_live_runs_tell_what_stands_beside_their_phase(
    coordinator: FakeCoordinator, runyard: Command
) -> None:
    coordinator.put_run(
        run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING, unreachable=True, stop_requested=True)
    )
    assert "running (unreachable) (stop requested)" in runyard("run", "list").out


def test_an_empty_list_says_so_to_people_and_is_empty_for_scripts(runyard: Command) -> None:
    assert runyard("run", "list").out == "no runs match\n"
    assert runyard("run", "list", "-o", "json").json() == []
    assert runyard("node", "list").out == "no nodes; start one with `runyard agent`\n"


@pytest.mark.usefixtures("orders")
def test_a_run_is_shown_with_events_and_the_end_of_its_stderr(runyard: Command) -> None:
    shown = runyard("run", "show", RUN)
    assert shown.code == 0
    for part in (
        "orders in shop.py",
        "oom_killed",
        "n1 in cluster east",
        "2 (resume 1)",
        "signal 9",
        "3.0 GiB at most",
        "2026-03-01 10:00:02.500  2        running  n1    worker started",
        "last lines of stderr\nloading [bold]\nKilled\n",
    ):
        assert part in shown.out


@pytest.mark.usefixtures("orders")
def test_json_of_a_run_has_every_field_under_its_proto_name(runyard: Command) -> None:
    shown = runyard("run", "show", RUN, "--output", "json").json()
    assert set(shown) == {"run", "events"}
    run = shown["run"]
    assert set(run) == {field.name for field in run_pb2.Run.DESCRIPTOR.fields}
    assert (run["phase"], run["attempt"], run["stop_requested"]) == ("finished", 2, False)
    assert run["launched_at"] == "2026-03-01T10:00:00Z"
    assert run["assigned_at"] is None
    assert run["usage"] is None
    assert run["outcome"] == {
        "kind": "oom_killed",
        "exit_code": None,
        "signal": 9,
        "message": "killed for want of memory",
        "stderr_tail": "loading [bold]\nKilled\n",
        "peak_rss_bytes": 3221225472,
        "memory_limit_bytes": 0,
        "cause": "",
    }
    assert shown["events"][0]["phase"] == "running"


@pytest.mark.usefixtures("node")
def test_nodes_and_clusters_are_listed_and_shown(runyard: Command) -> None:
    line = runyard("node", "list", "--cluster", "east").out.splitlines()[1]
    assert line.split()[:8] == ["n1", "east", "ready", "1/4", "0.5/8", "4Gi/31Gi", "gpu", "0/2"]
    assert line.endswith("zone=a")
    assert "host1" in runyard("node", "show", "n1").out
    (listed,) = runyard("node", "list", "-o", "json").json()
    assert listed == runyard("node", "show", "n1", "-o", "json").json()
    assert (listed["state"], listed["facts"]["memory_bytes"]) == ("ready", 2**34)
    assert listed["offer"]["labels"] == {"zone": "a", "runyard/os": "linux"}
    assert listed["allocated"] == {"slots": 1, "cpu": 500, "memory": 4 * GIB}
    (cluster,) = runyard("cluster", "list", "-o", "json").json()
    assert cluster == {
        "name": "east",
        "nodes": 1,
        "nodes_ready": 1,
        "resources": {"slots": 4, "cpu": 8000, "memory": 31 * GIB, "gpu": 2},
        "allocated": {"slots": 1, "cpu": 500, "memory": 4 * GIB},
    }
    line = runyard("cluster", "list").out.splitlines()[1]
    assert line.split() == ["east", "1", "1", "1/4", "0.5/8", "4Gi/31Gi", "gpu", "0/2"]


@pytest.mark.usefixtures("node")
def test_a_node_is_shown_with_what_it_offers_and_what_is_taken_of_it(runyard: Command) -> None:
    lines = [line.split() for line in runyard("node", "show", "n1").out.splitlines()]
    for line in (
        ["labels", "runyard/os=linux", "zone=a"],
        ["taints", "batch=night"],
        ["drivers", "process"],
        ["RESOURCE", "OFFERED", "ALLOCATED", "FREE", "RESERVED"],
        ["slots", "4", "1", "3"],
        ["cpu", "8", "0.5", "7.5"],
        ["memory", "31Gi", "4Gi", "27Gi", "1Gi"],
        ["gpu", "2", "0", "2"],
    ):
        assert line in lines
    assert not any("stands" in line for line in lines)


def test_a_gateway_is_shown_with_the_largest_run_that_it_takes(
    runyard: Command, node: fleet_pb2.Node
) -> None:
    node.offer.gateway = True
    node.offer.largest_run["cpu"] = 2000
    lines = [line.split() for line in runyard("node", "show", "n1").out.splitlines()]
    assert ["stands", "for", "a", "whole", "cluster"] in lines
    assert ["RESOURCE", "OFFERED", "ALLOCATED", "FREE", "RESERVED", "LARGEST", "RUN"] in lines
    assert ["cpu", "8", "0.5", "7.5", "2"] in lines


def test_shared_options_stand_before_the_command_or_after_it(
    coordinator: FakeCoordinator, runyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNYARD_ADDRESS")
    before = runyard("--address", coordinator.address, "--output", "json", "run", "list")
    after = runyard("run", "list", "--address", coordinator.address, "--output", "json")
    assert before == after == Result(0, "[]\n", "")


# Runs by the beginning of their ID


@pytest.mark.usefixtures("orders")
def test_a_run_is_found_by_the_beginning_of_its_id(runyard: Command) -> None:
    assert runyard("run", "show", "8B1A99", "-o", "json").json()["run"]["run_id"] == RUN


@pytest.mark.usefixtures("orders")
def test_a_beginning_that_fits_two_runs_names_both(coordinator: FakeCoordinator, runyard: Command) -> None:
    coordinator.put_run(run_pb2.Run(run_id=SIBLING))
    shown = runyard("run", "show", "8b1a9953")
    assert shown.code == 2
    assert shown.err == (f"runyard: run '8b1a9953' could be 2 runs; give more of the ID: {SIBLING}, {RUN}\n")
    assert runyard("run", "show", "8b1a9953-c").code == 0


@pytest.mark.usefixtures("orders")
def test_a_beginning_that_fits_none_or_is_too_short_is_refused(runyard: Command) -> None:
    assert runyard("run", "show", "ffffff").code == 4
    short = runyard("run", "show", "8b1a9")
    assert (short.code, short.err) == (
        2,
        "runyard: run '8b1a9' is too short: give the ID's first 6 characters or more\n",
    )


# Stopping


def test_a_stop_returns_when_it_is_durable(coordinator: FakeCoordinator, runyard: Command) -> None:
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING))
    assert runyard("run", "stop", RUN[:8]).out == f"run {RUN} is being stopped\n"
    assert coordinator.runs[RUN].message.startswith("stopped from the command line by ")
    assert coordinator.runs[RUN].stop_requested


def test_a_stop_with_wait_returns_when_the_run_is_over(
    coordinator: FakeCoordinator, runyard: Command
) -> None:
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING))

    def end() -> None:
        wait_until(lambda: coordinator.requests("WatchRuns"), "the command watches")
        outcome = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_STOPPED)
        coordinator.move(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_FINISHED, outcome=outcome))

    ending = threading.Thread(target=end)
    ending.start()
    stopped = runyard("run", "stop", RUN, "--wait", "--reason", "test")
    ending.join()
    assert stopped == Result(0, f"run {RUN} is over: stopped\n", "")


def test_a_stop_that_takes_too_long_has_failed(coordinator: FakeCoordinator, runyard: Command) -> None:
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING))
    stopped = runyard("run", "stop", RUN, "--wait", "--timeout", "0.3")
    assert stopped.code == 1
    assert stopped.err == f"runyard: run {RUN} is still stopping after 0.3 s; the stop stays in force\n"


@pytest.mark.usefixtures("orders")
def test_stopping_what_is_over_says_how_it_ended(runyard: Command) -> None:
    assert runyard("run", "stop", RUN) == Result(0, f"run {RUN} is over: oom_killed\n", "")


def test_stopping_an_unknown_run_says_that_it_cannot_start_any_more(runyard: Command) -> None:
    stopped = runyard("run", "stop", RUN)
    assert stopped.code == 4
    assert "should it still be launched, it ends at once" in stopped.err


# How commands end


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["run", "show", RUN], 4, "is not known"),
        (["run", "logs", RUN], 4, "is not known"),
        (["node", "show", "n9"], 4, "never joined"),
        (["run", "list", "--phase", "asleep"], 2, "'asleep' is not one of 'queued'"),
        (["run", "list", "--limit", "0"], 2, "--limit"),
        (["run", "explode"], 2, "explode"),
        (["run", "list", "--address", "localhost"], 2, "address: 'localhost' has no port"),
        (["run", "list", "--address", "10.0.0.1:7171"], 2, "will not dial 10.0.0.1:7171"),
        (["run", "list", "--address", "127.0.0.1:1"], 3, "127.0.0.1:1 cannot be reached: connection refused"),
    ],
)
def test_exit_codes_mean_something(runyard: Command, argv: list[str], code: int, words: str) -> None:
    ended = runyard(*argv)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_a_failure_of_the_coordinator_is_one_line(coordinator: FakeCoordinator, runyard: Command) -> None:
    coordinator.fail("ListRuns", grpc.StatusCode.INTERNAL, "its log says how")
    ended = runyard("run", "list")
    assert ended.code == 1
    assert ended.err == (
        f"runyard: the coordinator at {coordinator.address} failed in ListRuns: its log says how\n"
    )


def test_exit_codes_and_version_are_told(runyard: Command) -> None:
    assert "3 the coordinator cannot be reached" in " ".join(runyard("--help").out.split())
    assert runyard("--version").out.startswith("runyard 0.")


# Daemons


def test_daemons_get_their_arguments_as_they_are(runyard: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def fake_main(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    daemon = types.ModuleType("runyard.coordinator.__main__")
    vars(daemon)["main"] = fake_main
    monkeypatch.setitem(sys.modules, daemon.__name__, daemon)
    assert runyard("coordinator", "--listen", "127.0.0.1:0", "--check", "--help", "-x").code == 7
    assert seen == [["--listen", "127.0.0.1:0", "--check", "--help", "-x"]]


def test_a_daemon_that_is_not_installed_names_the_extra(
    runyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "runyard.agent.__main__", None)
    ended = runyard("agent")
    assert ended.code == 1
    assert ended.err.endswith("Install it with: pip install 'runyard[agent]'\n")


# The process


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_without_the_extra_the_command_names_it() -> None:
    ended = python(
        "import sys; sys.modules['typer'] = None\n"
        "from runyard.cli.main import main\n"
        "sys.exit(main(['run', 'list']))"
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "runyard: the command line needs typer, which is not installed.\n"
        "Install it with: pip install 'runyard[cli]'\n"
    )


def test_the_library_loads_nothing_of_the_command_line() -> None:
    ended = python(
        "import sys, runyard.client\n"
        "extra = {'typer', 'rich', 'yaml', 'structlog', 'pydantic', 'psutil', 'dagster', 'sqlalchemy'}\n"
        "print(sorted(extra & set(sys.modules)))"
    )
    assert ended.stdout == "[]\n", ended.stderr
