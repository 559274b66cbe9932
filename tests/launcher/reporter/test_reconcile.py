"""The other way round: no worker may live on for a run that Dagster has ended."""

import grpc
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from harness.waiting import wait_until
from launcher.placing_coordinator import PlacingCoordinator
from launcher.shop import Shop
from launcher.support.reporters import reporting

from runyard.launcher.reporter.reconcile import OrphanGrace, Reconciler, Stop
from runyard.v1 import run_pb2

SUCCESS = DagsterRunStatus.SUCCESS
FAILURE = DagsterRunStatus.FAILURE
CANCELED = DagsterRunStatus.CANCELED
CANCELING = DagsterRunStatus.CANCELING
STARTED = DagsterRunStatus.STARTED
STARTING = DagsterRunStatus.STARTING


def live(phase: run_pb2.Phase.ValueType, **details: bool) -> run_pb2.Run:
    return run_pb2.Run(run_id="r", phase=phase, **details)  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", [run_pb2.PHASE_QUEUED, run_pb2.PHASE_ASSIGNED], ids=run_pb2.Phase.Name)
@pytest.mark.parametrize("status", [SUCCESS, FAILURE, CANCELED])
def test_a_worker_that_does_not_run_yet_goes_at_once(
    phase: run_pb2.Phase.ValueType, status: DagsterRunStatus
) -> None:
    (stop,) = OrphanGrace(30).overdue([live(phase)], {"r": status}, now=0)
    assert stop == Stop("r", f"Dagster has the run as {status.value}")


@pytest.mark.parametrize("status", [SUCCESS, FAILURE, CANCELED])
def test_a_running_worker_may_linger_and_then_goes(status: DagsterRunStatus) -> None:
    orphan_grace = OrphanGrace(30)
    runs = [live(run_pb2.PHASE_RUNNING)]
    assert orphan_grace.overdue(runs, {"r": status}, now=100) == []
    assert orphan_grace.overdue(runs, {"r": status}, now=129) == []
    assert orphan_grace.overdue(runs, {"r": status}, now=130) == [
        Stop("r", f"Dagster has the run as {status.value}")
    ]


@pytest.mark.parametrize("phase", [run_pb2.PHASE_QUEUED, run_pb2.PHASE_RUNNING])
def test_a_worker_whose_run_is_not_in_this_instance_stays(phase: run_pb2.Phase.ValueType) -> None:
    assert OrphanGrace(0).overdue([live(phase)], {}, now=100) == []


@pytest.mark.parametrize("status", [STARTING, STARTED, DagsterRunStatus.QUEUED])
def test_a_worker_whose_run_goes_on_stays(status: DagsterRunStatus) -> None:
    runs = [live(run_pb2.PHASE_QUEUED), live(run_pb2.PHASE_RUNNING)]
    assert OrphanGrace(0).overdue(runs, {"r": status}, now=0) == []


def test_a_stop_that_dagster_has_noted_and_the_coordinator_has_not_is_passed_on() -> None:
    assert OrphanGrace(30).overdue([live(run_pb2.PHASE_RUNNING)], {"r": CANCELING}, now=0) == [
        Stop("r", "the run is being canceled in Dagster")
    ]


def test_a_worker_that_is_being_stopped_needs_no_second_word() -> None:
    runs = [live(run_pb2.PHASE_RUNNING, stop_requested=True)]
    assert OrphanGrace(0).overdue(runs, {"r": CANCELED}, now=0) == []


def test_the_clock_starts_anew_for_a_run_that_was_out_of_sight() -> None:
    orphan_grace = OrphanGrace(30)
    runs = [live(run_pb2.PHASE_RUNNING)]
    orphan_grace.overdue(runs, {"r": FAILURE}, now=0)
    orphan_grace.overdue([], {}, now=20)
    assert orphan_grace.overdue(runs, {"r": FAILURE}, now=40) == []


@pytest.fixture
def reconciler(shop: Shop) -> Reconciler:
    return Reconciler(shop.launcher.open_client(), shop.instance, "default", orphan_grace=0)


def test_workers_of_ended_runs_are_stopped_and_others_are_not(
    shop: Shop,
    coordinator: PlacingCoordinator,
    reconciler: Reconciler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    going_on, failed, deleted = (shop.launch_and_start() for _ in range(3))
    for run_id in (going_on, failed, deleted):
        coordinator.begin(run_id)
    shop.worker_writes(failed, DagsterEventType.PIPELINE_FAILURE)
    shop.instance.delete_run(deleted)
    reconciler.run_once()
    assert coordinator.was_told_to_stop(failed)
    # Missing is not ended: the run may be another instance's.
    assert not coordinator.was_told_to_stop(deleted)
    assert deleted in caplog.text
    assert not coordinator.was_told_to_stop(going_on)


def test_runs_of_another_deployment_are_none_of_our_business(
    shop: Shop, coordinator: PlacingCoordinator, reconciler: Reconciler
) -> None:
    coordinator.put_run(run_pb2.Run(run_id="theirs", deployment="night", phase=run_pb2.PHASE_QUEUED))
    reconciler.run_once()
    assert not coordinator.was_told_to_stop("theirs")


def test_a_stop_that_fails_does_not_keep_the_next_from_being_sent(
    shop: Shop, coordinator: PlacingCoordinator, reconciler: Reconciler
) -> None:
    first, second = shop.launch(), shop.launch()
    for run_id in (first, second):
        shop.worker_writes(run_id, DagsterEventType.PIPELINE_CANCELED)
    coordinator.fail("TerminateRun", grpc.StatusCode.INTERNAL, "no space left")
    reconciler.run_once()
    stops = [run_id for run_id in (first, second) if coordinator.runs[run_id].stop_requested]
    assert len(stops) == 1


def test_more_runs_than_one_query_takes_are_all_looked_up(
    shop: Shop, coordinator: PlacingCoordinator, reconciler: Reconciler
) -> None:
    going_on = shop.launch_and_start()
    stopping = run_pb2.Run(deployment="default", phase=run_pb2.PHASE_RUNNING, stop_requested=True)
    for number in range(1100):
        stopping.run_id = f"gone-{number}"
        coordinator.put_run(run_pb2.Run.FromString(stopping.SerializeToString()))
    last = shop.launch()
    shop.worker_writes(last, DagsterEventType.PIPELINE_CANCELED)
    reconciler.run_once()
    assert coordinator.was_told_to_stop(last)
    assert not coordinator.was_told_to_stop(going_on)


def test_the_reporter_sweeps_by_itself(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch()
    shop.worker_writes(run_id, DagsterEventType.PIPELINE_FAILURE)  # as when run monitoring gave it up
    with reporting(shop):
        wait_until(lambda: coordinator.was_told_to_stop(run_id), "the worker is stopped", timeout=30)
