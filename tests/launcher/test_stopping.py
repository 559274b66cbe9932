"""Terminating runs: from Dagster's web server to the coordinator, and what the run ends as."""

import grpc
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from dagster._core.launcher import LaunchRunContext
from launcher.conftest import OpenShop
from launcher.placing_coordinator import PlacingCoordinator
from launcher.shop import Shop

from runyard.launcher.errors import NotTerminated
from runyard.v1 import run_pb2

STARTED = DagsterRunStatus.STARTED
CANCELING = DagsterRunStatus.CANCELING
CANCELED = DagsterRunStatus.CANCELED


def test_a_stop_marks_the_run_before_the_coordinator_is_told(
    shop: Shop, coordinator: PlacingCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = shop.launch_and_start()
    at_stop: list[DagsterRunStatus] = []
    monkeypatch.setattr(coordinator, "on_stop", lambda: at_stop.append(shop.status(run_id)))
    assert shop.launcher.terminate(run_id) is True
    assert at_stop == [CANCELING]
    assert coordinator.runs[run_id].stop_requested


def test_a_stop_of_a_run_that_never_was_does_nothing(shop: Shop, coordinator: PlacingCoordinator) -> None:
    assert shop.launcher.terminate("6c6eb1b2-0b75-4b37-ac6e-2a3f8ef3d4a1") is False
    assert coordinator.calls == []


def test_a_stop_of_a_finished_run_does_nothing(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    shop.worker_writes(run_id, DagsterEventType.PIPELINE_SUCCESS)
    assert shop.launcher.terminate(run_id) is False
    assert not coordinator.was_told_to_stop(run_id)


def test_a_stop_that_does_not_reach_the_coordinator_changes_nothing(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.stop()
    with pytest.raises(NotTerminated, match="nothing was changed"):
        shop.launcher.terminate(run_id)
    assert shop.status(run_id) == STARTED
    assert shop.events(run_id, DagsterEventType.PIPELINE_CANCELING) == []


def test_a_stop_while_the_coordinator_recovers_changes_nothing(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.fail("GetRun", grpc.StatusCode.UNAVAILABLE, "recovering for 12 s more")
    with pytest.raises(NotTerminated, match="recovering for 12 s more"):
        shop.launcher.terminate(run_id)
    assert shop.status(run_id) == STARTED


def test_a_stop_that_is_lost_halfway_says_that_the_run_is_marked(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop({"request_timeout_seconds": 0.5})
    run_id = shop.launch_and_start()
    coordinator.fail("TerminateRun", grpc.StatusCode.UNAVAILABLE, "shutting down", times=100)
    with pytest.raises(NotTerminated, match=r"marked as canceling.*shutting down"):
        shop.launcher.terminate(run_id)
    assert shop.status(run_id) == CANCELING


def test_a_repeated_stop_is_marked_once(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    assert shop.launcher.terminate(run_id) is True
    assert shop.launcher.terminate(run_id) is True
    assert len(shop.events(run_id, DagsterEventType.PIPELINE_CANCELING)) == 1


def test_a_stop_of_a_run_whose_worker_is_over_ends_it_as_canceled(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.end(run_id, run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, signal=9))
    assert shop.launcher.terminate(run_id) is True
    assert shop.status(run_id) == CANCELED


def test_a_stop_overtakes_a_launch_that_is_still_on_its_way(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run = shop.new_run()
    assert shop.launcher.terminate(run.run_id) is True
    assert shop.status(run.run_id) == CANCELED
    shop.launcher.launch_run(LaunchRunContext(run, shop.workspace))
    assert coordinator.runs[run.run_id].phase == run_pb2.PHASE_FINISHED


def test_a_stop_of_a_started_run_that_the_coordinator_never_had_is_refused_with_the_remedy(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    del coordinator.runs[run_id]
    assert shop.launcher.terminate(run_id) is False
    assert shop.status(run_id) == STARTED
    assert "force option" in shop.messages(run_id)[-1]
    assert run_id in coordinator.tombstones
