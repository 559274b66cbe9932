"""Asking why a run is where it is, with both clients, against a fake coordinator (`fake_coordinator.py`)."""

import time
from collections.abc import Callable

import grpc
import pytest
from client.fake_coordinator import FakeCoordinator, make_spec

from runyard.client import (
    Client,
    CoordinatorUnreachable,
    InvalidRequest,
    LaunchRefused,
    NotFound,
    RunNotFound,
)
from runyard.v1 import launch_pb2, placement_pb2


def test_a_run_is_explained_as_the_coordinator_says(coordinator: FakeCoordinator, client: Client) -> None:
    client.launch_run(make_spec("r1"))
    coordinator.explanations["r1"] = placement_pb2.Explanation(verdict="waits", queue_position=1)
    explanation = client.explain_run("r1")
    assert (explanation.verdict, explanation.queue_position) == ("waits", 1)


def test_a_launch_that_is_only_thought_of_travels_whole_and_launches_nothing(
    coordinator: FakeCoordinator, client: Client
) -> None:
    coordinator.explanations["orders"] = placement_pb2.Explanation(verdict="would go to n1")
    coordinator.snapshots["s1"] = b"{}"
    explanation = client.explain_launch(
        deployment="shop",
        job="orders",
        location="shop.py",
        repository="books",
        tags={"runyard/cpu": "2"},
        job_snapshot_id="s1",
        step_keys=["count"],
    )
    assert explanation.verdict == "would go to n1"
    assert coordinator.requests("ExplainLaunch") == [
        launch_pb2.ExplainLaunchRequest(
            deployment="shop",
            job="orders",
            location="shop.py",
            repository="books",
            tags={"runyard/cpu": "2"},
            job_snapshot_id="s1",
            step_keys=["count"],
        )
    ]
    assert not coordinator.runs


def test_what_cannot_be_explained_says_what_it_is(coordinator: FakeCoordinator, client: Client) -> None:
    with pytest.raises(RunNotFound):
        client.explain_run("r1")
    with pytest.raises(NotFound, match="snapshot s1 is not held here") as failure:
        client.explain_launch(job="orders", job_snapshot_id="s1")
    assert not isinstance(failure.value, RunNotFound)
    coordinator.fail("ExplainLaunch", grpc.StatusCode.FAILED_PRECONDITION, "no node has a gpu")
    with pytest.raises(LaunchRefused, match="no node has a gpu"):
        client.explain_launch(job="orders")
    coordinator.fail("ExplainLaunch", grpc.StatusCode.INVALID_ARGUMENT, "tag runyard/cpu: 'many'")
    with pytest.raises(InvalidRequest, match="runyard/cpu"):
        client.explain_launch(job="orders", tags={"runyard/cpu": "many"})


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.explain_run("r1", timeout=0.3),
        lambda client: client.explain_launch(job="orders", timeout=0.3),
    ],
    ids=["run", "launch"],
)
def test_a_coordinator_that_does_not_explain_ends_the_call_at_its_deadline(
    coordinator: FakeCoordinator, client: Client, call: Callable[[Client], object]
) -> None:
    coordinator.stalled.set()
    started = time.monotonic()
    with pytest.raises(CoordinatorUnreachable, match="deadline exceeded"):
        call(client)
    assert 0.25 < time.monotonic() - started < 5
    coordinator.stalled.clear()
