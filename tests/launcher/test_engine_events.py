"""What the event log says of a run's placement."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from runyard.launcher.engine_events import EngineEvent, launched, placed_again, still_starting, worker_started
from runyard.v1 import placement_pb2, run_pb2

WANTED = placement_pb2.Requirements(
    resources={"slots": 1, "cpu": 500, "memory": 2**30}, labels=["zone=a"], driver="process"
)


def queued(**fields: object) -> run_pb2.Run:
    run = run_pb2.Run(run_id="r", phase=run_pb2.PHASE_QUEUED, launched_at=Timestamp(seconds=1000))
    run.MergeFrom(run_pb2.Run(**fields))  # type: ignore[arg-type]
    return run


def placed(after: float = 0.0, **fields: object) -> run_pb2.Run:
    run = queued(phase=run_pb2.PHASE_RUNNING, node="n1", cluster="main", pid=41, **fields)
    run.assigned_at.FromNanoseconds(run.launched_at.ToNanoseconds() + round(after * 1e9))
    return run


def metadata(event: EngineEvent) -> dict[str, object]:
    return {name: getattr(value, "value", value) for name, value in event.metadata.items()}


def test_a_run_that_waits_says_for_what_and_what_it_asks_for() -> None:
    event = launched(
        queued(
            message=(
                "waiting: 0/12 nodes available: "
                "8 did not match label zone=a, 3 insufficient memory, 1 draining"
            ),
            requirements=WANTED,
            rule="nightly",
        )
    )
    assert event.message == (
        "Runyard accepted the run as attempt 0, waiting: 0/12 nodes available: "
        "8 did not match label zone=a, 3 insufficient memory, 1 draining"
    )
    assert metadata(event) == {
        "run worker": "r/0",
        "attempt": 0,
        "requirements": "cpu 0.5, memory 1Gi, zone=a",
        "routing rule": "nightly",
    }


def test_a_run_that_waits_for_no_told_reason_still_says_that_it_waits() -> None:
    assert launched(queued()).message.endswith(", waiting: no node can take it now")


def test_a_run_that_is_placed_at_once_says_where_and_why() -> None:
    event = launched(placed(placed_because="the fullest of 3 nodes that fit."))
    assert event.message == (
        "Runyard accepted the run as attempt 0 on node n1 of cluster main: the fullest of 3 nodes that fit"
    )
    assert metadata(event)["placed because"] == "the fullest of 3 nodes that fit."
    assert "waited" not in metadata(event)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, None),
        (0.9, None),
        (1.2, "1 s"),
        (119.0, "119 s"),
        (420.0, "7 min"),
        (7500.0, "2 h 5 min"),
    ],
)
def test_a_started_worker_says_why_there_and_after_how_long_a_wait(seconds: float, words: str | None) -> None:
    event = worker_started(placed(seconds, placed_because="the only free node; after a while in the queue"))
    assert event.message == (
        "Worker started on node n1 (pid 41, attempt 0): the only free node; after a while in the queue"
    )
    assert metadata(event).get("waited") == words


def test_a_coordinator_that_gives_no_reasons_is_quoted_with_none() -> None:
    event = worker_started(run_pb2.Run(run_id="r", phase=run_pb2.PHASE_RUNNING, node="n1", pid=41))
    assert event.message == "Worker started on node n1 (pid 41, attempt 0)"
    assert metadata(event) == {
        "run worker": "r/0",
        "attempt": 0,
        "cluster": "",
        "node": "n1",
        "pid": 41,
    }


def test_a_worker_that_does_not_begin_yet_says_why() -> None:
    event = still_starting(placed(message="pulling image etl:1: 120 of 400 MiB"))
    assert event.message == "Node n1 is preparing the worker: pulling image etl:1: 120 of 400 MiB"
    assert metadata(event)["node"] == "n1"


FAILED_PLACES = [
    run_pb2.FailedPlace(node="n0", reason="the image is gone"),
    run_pb2.FailedPlace(node="n7", reason="executable /venv/bin/python does not exist on this node."),
]


def test_a_run_that_its_node_did_not_start_says_why_and_where_it_goes() -> None:
    event = placed_again(placed(attempt=2, failed_places=FAILED_PLACES))
    assert event.message == (
        "Node n7 did not start the run: executable /venv/bin/python does not exist on this node. "
        "Attempt 2 goes to node n1"
    )
    assert metadata(event)["not started by"] == (
        "n0: the image is gone\nn7: executable /venv/bin/python does not exist on this node."
    )


def test_a_run_that_no_node_can_take_yet_after_one_did_not_start_it_says_that_it_waits() -> None:
    event = placed_again(queued(attempt=1, failed_places=FAILED_PLACES[:1]))
    assert (
        event.message == "Node n0 did not start the run: the image is gone. Attempt 1 waits for another node"
    )


def test_a_worker_that_started_at_the_second_try_names_the_first() -> None:
    event = worker_started(placed(attempt=1, failed_places=FAILED_PLACES[:1]))
    assert metadata(event)["not started by"] == "n0: the image is gone"
