"""How the command line explains where runs go, against a fake coordinator (see `fake_coordinator.py`)."""

import grpc
import pytest
from cli.commands import RUN, Command, Result
from client.fake_coordinator import FakeCoordinator

from runyard.v1 import launch_pb2, placement_pb2, run_pb2

WAITING = placement_pb2.Explanation(
    verdict=(
        f"run {RUN} waits: 0/12 nodes available: "
        "8 did not match label zone=a, 3 insufficient memory, 1 draining"
    ),
    fields=[
        placement_pb2.ExplainedField(
            name="memory",
            value="16Gi",
            source="tags",
            overridden=["8Gi (op train[0])", "1Gi (defaults)"],
        ),
        placement_pb2.ExplainedField(name="labels", value="zone=a", source="rule nightly"),
    ],
    rule="nightly",
    clusters=[
        placement_pb2.ClusterChoice(name="main", utilization=0.875, nodes_ready=11),
        placement_pb2.ClusterChoice(name="annex", closed="opens in 42 s", utilization=0, nodes_ready=1),
    ],
    filters=[
        placement_pb2.FilterCount(reason="did not match label zone=a", nodes=8),
        placement_pb2.FilterCount(reason="insufficient memory", nodes=3),
        placement_pb2.FilterCount(reason="draining", nodes=1),
    ],
    queue_position=2,
    queue_length=5,
    waits_for="a node with 16Gi of free memory",
    priority=1,
    effective_priority=3,
    share="shop.py",
)

FITTING = placement_pb2.Explanation(
    verdict="would go to n1 in cluster main",
    filters=[placement_pb2.FilterCount(reason="without a free slot", nodes=1)],
    nodes=[
        placement_pb2.NodeScore(
            node="n1", cluster="main", total=1.25, marks={"packing": 0.75, "wishes": 0.5}
        ),
        placement_pb2.NodeScore(node="n2", cluster="main", total=0.25, marks={"packing": 0.25}),
    ],
)


def lines(result: Result) -> list[str]:
    """What was printed, without the blanks that fill up a table."""
    return [line.rstrip() for line in result.out.splitlines()]


@pytest.fixture
def waiting(coordinator: FakeCoordinator) -> None:
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_QUEUED))
    coordinator.explanations[RUN] = WAITING


@pytest.mark.usefixtures("waiting")
def test_a_waiting_run_is_explained_with_the_verdict_first(runyard: Command) -> None:
    explained = runyard("run", "explain", RUN[:8])
    assert explained.code == 0
    assert lines(explained) == [
        f"Run {RUN} waits: 0/12 nodes available: "
        "8 did not match label zone=a, 3 insufficient memory, 1 draining",
        "",
        "waits for  a node with 16Gi of free memory",
        "queue      place 2 of 5, in the share of shop.py",
        "priority   1, 3 for having waited",
        "rule       nightly",
        "",
        "REQUIREMENT  VALUE   FROM          OVERRIDES",
        "memory       16Gi    tags          8Gi (op train[0]), 1Gi (defaults)",
        "labels       zone=a  rule nightly",
        "",
        "CLUSTER  IN USE  NODES READY  OPEN",
        "main     88%     11           yes",
        "annex    0%      1            opens in 42 s",
    ]


@pytest.mark.usefixtures("waiting")
def test_the_explanation_for_scripts_has_every_field_under_its_proto_name(runyard: Command) -> None:
    explained = runyard("run", "explain", RUN, "--output", "json").json()
    assert set(explained) == {field.name for field in placement_pb2.Explanation.DESCRIPTOR.fields}
    assert explained["fields"][1] == {
        "name": "labels",
        "value": "zone=a",
        "source": "rule nightly",
        "overridden": [],
    }
    assert explained["filters"][0] == {"reason": "did not match label zone=a", "nodes": 8}
    assert (explained["queue_position"], explained["nodes"]) == (2, [])


def test_a_dry_run_shows_the_best_nodes_with_their_marks(
    coordinator: FakeCoordinator, runyard: Command
) -> None:
    coordinator.explanations["orders"] = FITTING
    coordinator.snapshots["s1"] = b"{}"
    options = ["--location", "shop.py", "--repository", "books", "--deployment", "shop", "--snapshot", "s1"]
    tags = ["--tag", "runyard/labels=zone=a", "--tag", "team="]
    explained = runyard("route", "explain", "--job", "orders", *options, *tags)
    assert explained.code == 0
    assert lines(explained) == [
        "Would go to n1 in cluster main",
        "",
        "excluded  1 without a free slot",
        "rule      none matched",
        "",
        "BEST NODES  CLUSTER  TOTAL  PACKING  WISHES",
        "n1          main     1.25   0.75     0.50",
        "n2          main     0.25   0.25",
    ]
    assert coordinator.requests("ExplainLaunch") == [
        launch_pb2.ExplainLaunchRequest(
            job="orders",
            location="shop.py",
            repository="books",
            deployment="shop",
            job_snapshot_id="s1",
            tags={"runyard/labels": "zone=a", "team": ""},
        )
    ]
    assert runyard("route", "explain", "--job", "orders", "-o", "json").json()["nodes"][0]["marks"] == {
        "packing": 0.75,
        "wishes": 0.5,
    }


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["run", "explain", RUN], 4, "is not known"),
        (["route", "explain"], 2, "--job"),
        (["route", "explain", "--job", "orders", "--tag", "alone"], 2, "tag 'alone' is not KEY=VALUE"),
        (["route", "explain", "--job", "orders", "--tag", "=2"], 2, "tag '=2' is not KEY=VALUE"),
        (["route", "explain", "--job", "orders", "--snapshot", "s9"], 4, "s9 is not held here"),
    ],
)
def test_what_cannot_be_explained_ends_with_a_reason(
    runyard: Command, argv: list[str], code: int, words: str
) -> None:
    ended = runyard(*argv)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err


def test_a_refused_launch_is_a_failure_with_the_coordinators_words(
    coordinator: FakeCoordinator, runyard: Command
) -> None:
    coordinator.fail("ExplainLaunch", grpc.StatusCode.INVALID_ARGUMENT, "tag runyard/cpu: 'many'")
    ended = runyard("route", "explain", "--job", "orders", "--tag", "runyard/cpu=many")
    assert (ended.code, ended.err) == (1, "runyard: tag runyard/cpu: 'many'\n")


def test_a_shown_run_says_what_it_asked_for_and_why_it_is_where_it_is(
    coordinator: FakeCoordinator, runyard: Command
) -> None:
    wanted = placement_pb2.Requirements(
        resources={"cpu": 1500, "memory": 16 * 2**30, "slots": 1},
        labels=["zone=a|b", "!spot"],
        cluster="main",
        driver="process",
        tolerations=["gpu"],
        preferences=[
            placement_pb2.Preference(label="disk=ssd", weight=3),
            placement_pb2.Preference(label="new", weight=1),
        ],
    )
    coordinator.put_run(
        run_pb2.Run(
            run_id=RUN,
            phase=run_pb2.PHASE_RUNNING,
            cluster="main",
            node="n1",
            requirements=wanted,
            placed_because="the fullest of 3 nodes with room",
            rule="nightly",
        )
    )
    facts = lines(runyard("run", "show", RUN))
    shown = {line[:16].strip(): line[16:].strip() for line in facts}
    assert shown["placed because"] == "the fullest of 3 nodes with room"
    assert shown["requirements"] == (
        "cpu 1.5, memory 16Gi, zone=a|b, !spot, cluster main, tolerates gpu, prefers disk=ssd (weight 3), "
        "prefers new"
    )
    assert shown["rule"] == "nightly"


def test_a_run_that_asks_for_nothing_in_particular_asks_for_a_slot(
    coordinator: FakeCoordinator, runyard: Command
) -> None:
    wanted = placement_pb2.Requirements(driver="process", resources={"slots": 1})
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_QUEUED, requirements=wanted))
    assert "requirements  1 slot" in runyard("run", "show", RUN).out
