"""The reporter at work: a real Dagster instance on one side, reports over a real socket on the other."""

import threading
import time
from contextlib import ExitStack

import grpc
import pytest
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.events import JobFailureData, RunFailureReason
from harness.waiting import wait_until
from launcher.conftest import OpenShop
from launcher.placing_coordinator import NODE, PID, PlacingCoordinator
from launcher.shop import Shop
from launcher.support.reporters import QUICK, reporting
from launcher.support.threads import in_thread

from runyard.launcher.reporter.dagster_writes import write_failure
from runyard.launcher.reporter.reporter import Reporter, Timing
from runyard.v1 import run_pb2

STARTED = DagsterRunStatus.STARTED
STARTING = DagsterRunStatus.STARTING
SUCCESS = DagsterRunStatus.SUCCESS
FAILURE = DagsterRunStatus.FAILURE
CANCELED = DagsterRunStatus.CANCELED

KILLED = run_pb2.Outcome(
    kind=run_pb2.OUTCOME_KIND_OOM_KILLED,
    signal=9,
    peak_rss_bytes=2**30,
    memory_limit_bytes=2**30,
    stderr_tail="Killed\n```\nby the kernel",
)
STOPPED = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_STOPPED, signal=15, message="stopped by an operator")
SUCCEEDED = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_SUCCEEDED, exit_code=0)


def wait_for_status(shop: Shop, run_id: str, status: DagsterRunStatus) -> None:
    wait_until(lambda: shop.status(run_id) == status, lambda: shop.status(run_id), timeout=30, poll=0.02)


def wait_until_settled(coordinator: PlacingCoordinator, run_id: str) -> None:
    wait_until(
        lambda: coordinator.has_settled(run_id), lambda: coordinator.acknowledged, timeout=30, poll=0.02
    )


def test_a_killed_worker_is_a_failed_run_at_once_and_says_why(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    with reporting(shop, Timing()):
        wait_until(lambda: coordinator.reporters, "the reporter listens")
        coordinator.begin(run_id)
        wait_until(lambda: len(shop.messages(run_id)) == 2, lambda: shop.messages(run_id))
        killed_at = time.monotonic()
        coordinator.end(run_id, KILLED)
        wait_for_status(shop, run_id, FAILURE)
        assert time.monotonic() - killed_at < 3  # about 0.4 s on an idle machine
        wait_until_settled(coordinator, run_id)
    assert shop.messages(run_id)[1] == f"Worker started on node {NODE} (pid {PID}, attempt 0)"
    metadata = shop.metadata(run_id, "killed because it ran out of memory")
    assert metadata == {
        "run worker": f"{run_id}/0",
        "attempt": 0,
        "cluster": "main",
        "node": NODE,
        "pid": PID,
        "outcome": "OOM_KILLED",
        "exit cause": "oom_killed",
        "signal": "SIGKILL",
        "memory limit": "1.0 GiB",
        "peak memory": "1.0 GiB",
        "stderr": "    Killed\n    ```\n    by the kernel",
    }
    (failure,) = shop.events(run_id, DagsterEventType.PIPELINE_FAILURE)
    assert "killed because it ran out of memory (limit 1.0 GiB, peak 1.0 GiB)" in (failure.message or "")
    assert isinstance(failure.event_specific_data, JobFailureData)
    assert failure.event_specific_data.failure_reason == RunFailureReason.UNEXPECTED_TERMINATION
    assert shop.run(run_id).tags["runyard/outcome"] == "oom_killed"
    assert shop.run(run_id).tags["runyard/exit_cause"] == "oom_killed"


def test_a_start_that_takes_long_is_told_line_by_line_and_each_line_once(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch()
    lines = ["pulling image etl:1: 1 of 4 MiB", "pulling image etl:1: 3 of 4 MiB"]
    with reporting(shop):
        wait_until(lambda: coordinator.reporters, "the reporter listens")
        for number, line in enumerate(lines, start=2):
            coordinator.take_long(run_id, line)
            wait_until(lambda: len(shop.messages(run_id)) == number, lambda: shop.messages(run_id))  # noqa: B023
        coordinator.take_long(run_id, lines[-1])
        coordinator.begin(run_id)
        wait_until(lambda: "Worker started" in shop.messages(run_id)[-1], lambda: shop.messages(run_id))
    assert shop.messages(run_id)[1:-1] == [f"Node {NODE} is preparing the worker: {line}" for line in lines]
    assert shop.status(run_id) == STARTING


def test_a_worker_that_never_started_fails_its_run_at_once(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch()
    with reporting(shop):
        refused = run_pb2.Outcome(
            kind=run_pb2.OUTCOME_KIND_START_FAILED, message="/opt/shop/bin/python does not exist"
        )
        coordinator.end(run_id, refused)
        wait_for_status(shop, run_id, FAILURE)
    (failure,) = shop.events(run_id, DagsterEventType.PIPELINE_FAILURE)
    assert "could not be started" in (failure.message or "")
    assert "/opt/shop/bin/python does not exist." in (failure.message or "")


def test_the_end_of_a_worker_that_wrote_its_success_is_only_acknowledged(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    shop.worker_writes(run_id, DagsterEventType.PIPELINE_SUCCESS)
    with reporting(shop):
        coordinator.end(run_id, SUCCEEDED)
        wait_until_settled(coordinator, run_id)
    assert shop.status(run_id) == SUCCESS
    assert len(shop.messages(run_id)) == 1


def test_a_last_write_that_arrives_late_is_waited_for(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    in_flight = threading.Timer(0.4, shop.worker_writes, (run_id, DagsterEventType.PIPELINE_SUCCESS))
    with reporting(shop, Timing(drain=1.5)):
        coordinator.end(run_id, SUCCEEDED)
        wait_until(lambda: coordinator.requests("GetRun"), "the reporter's first look", poll=0.01)
        in_flight.start()
        wait_until_settled(coordinator, run_id)
        in_flight.join()
    assert shop.status(run_id) == SUCCESS
    assert shop.events(run_id, DagsterEventType.PIPELINE_FAILURE) == []


def test_a_worker_that_was_killed_by_a_stop_ends_its_run_as_canceled(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch()
    with reporting(shop):
        assert shop.launcher.terminate(run_id)
        coordinator.end(run_id, STOPPED)
        wait_for_status(shop, run_id, CANCELED)
        wait_until_settled(coordinator, run_id)
    (canceled,) = shop.events(run_id, DagsterEventType.PIPELINE_CANCELED)
    assert "was stopped" in (canceled.message or "")
    assert shop.metadata(run_id, "was stopped")["outcome"] == "STOPPED"


def test_a_run_that_an_operator_stopped_ends_as_canceled(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    with reporting(shop), shop.launcher.open_client() as operator:
        operator.terminate_run(run_id, reason="runyard run stop")
        coordinator.end(run_id, STOPPED)
        wait_for_status(shop, run_id, CANCELED)


def test_a_run_that_monitoring_will_resume_is_left_alone_until_its_last_attempt(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop({}, {"run_monitoring": {"enabled": True, "max_resume_run_attempts": 1}})
    run_id = shop.launch_and_start()
    with reporting(shop):
        coordinator.end(run_id, KILLED)
        wait_until_settled(coordinator, run_id)
        assert shop.status(run_id) == STARTED

        assert shop.monitor_once() == []
        assert coordinator.runs[run_id].attempt == 1
        coordinator.begin(run_id)
        coordinator.end(run_id, KILLED)
        wait_for_status(shop, run_id, FAILURE)
    (failure,) = shop.events(run_id, DagsterEventType.PIPELINE_FAILURE)
    assert "attempt 1" in (failure.message or "")


def test_a_deleted_run_is_only_acknowledged(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    shop.instance.delete_run(run_id)
    with reporting(shop):
        coordinator.end(run_id, KILLED)
        wait_until_settled(coordinator, run_id)
    assert not shop.instance.has_run(run_id)


def test_reports_wait_for_a_reporter_that_comes_later(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    coordinator.end(run_id, KILLED)
    with reporting(shop):
        wait_for_status(shop, run_id, FAILURE)


def test_two_reporters_write_once(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    with reporting(shop) as first:
        with reporting(shop):
            coordinator.end(run_id, KILLED)
            wait_until_settled(coordinator, run_id)
            first.stop()
        assert len(shop.events(run_id, DagsterEventType.PIPELINE_FAILURE)) == 1


def test_a_report_that_comes_again_is_written_once(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    coordinator.end(run_id, KILLED)
    with reporting(shop):
        wait_until_settled(coordinator, run_id)
    coordinator.acknowledged.clear()
    with reporting(shop):
        wait_until_settled(coordinator, run_id)
    assert len(shop.events(run_id, DagsterEventType.PIPELINE_FAILURE)) == 1
    assert len([message for message in shop.messages(run_id) if "ran out of memory" in message]) == 1


def test_a_move_to_another_node_is_told_though_the_start_there_overtook_its_news(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    with reporting(shop):
        wait_until(lambda: coordinator.reporters, "the reporter listens")
        refused = run_pb2.FailedPlace(node="node-0", reason="the image is gone")
        coordinator.move(run_pb2.Run(run_id=run_id, attempt=1, failed_places=[refused]))
        coordinator.begin(run_id)
        wait_until(lambda: len(shop.messages(run_id)) == 3, lambda: shop.messages(run_id))
    moved = f"Node node-0 did not start the run: the image is gone. Attempt 1 goes to node {NODE}"
    assert shop.messages(run_id)[1] == moved
    assert shop.messages(run_id)[2].startswith(f"Worker started on node {NODE}")


def test_the_start_of_a_worker_is_announced_once_however_often_it_is_told(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    with reporting(shop):
        wait_until(lambda: coordinator.reporters, "the reporter listens")
        coordinator.begin(run_id)
        wait_until(lambda: len(shop.messages(run_id)) == 2, lambda: shop.messages(run_id))
        coordinator.lose_sight(run_id)
        other = shop.launch_and_start()
        coordinator.end(other, KILLED)
        wait_for_status(shop, other, FAILURE)  # reports are settled in their order
    assert len(shop.messages(run_id)) == 2


def test_a_reporter_outlasts_a_coordinator_that_restarts(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    coordinator.stop()
    with reporting(shop):
        coordinator.start(coordinator.address)
        coordinator.end(run_id, KILLED)
        wait_for_status(shop, run_id, FAILURE)


def test_trouble_with_one_run_does_not_hold_up_another(
    shop: Shop, coordinator: PlacingCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursed, healthy = shop.launch_and_start(), shop.launch_and_start()
    refusals = iter(range(3))

    def failing_thrice(
        instance: DagsterInstance, worker: run_pb2.Run, message: str, reason: RunFailureReason
    ) -> None:
        if worker.run_id == cursed and next(refusals, None) is not None:
            raise OSError("the database is away")
        write_failure(instance, worker, message, reason)

    monkeypatch.setattr("runyard.launcher.reporter.reporter.write_failure", failing_thrice)
    with reporting(shop, Timing(drain=0.05, longest_pause=1.0)):
        coordinator.end(cursed, KILLED)
        coordinator.end(healthy, KILLED)
        wait_for_status(shop, healthy, FAILURE)
        wait_for_status(shop, cursed, FAILURE)
        wait_until_settled(coordinator, cursed)


def test_a_run_is_not_failed_while_the_coordinator_cannot_say_what_came_after(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.fail("GetRun", grpc.StatusCode.UNAVAILABLE, "recovering", times=2)
    with reporting(shop):
        coordinator.end(run_id, KILLED)
        wait_for_status(shop, run_id, FAILURE)
    assert len(coordinator.requests("GetRun")) >= 3


def test_a_reporter_that_is_stopped_ends_soon(shop: Shop, coordinator: PlacingCoordinator) -> None:
    with reporting(shop) as reporter:
        wait_until(lambda: coordinator.reporters, "the reporter listens")
        stopped_at = time.monotonic()
        reporter.stop()
    assert time.monotonic() - stopped_at < 2


def test_the_storage_of_dagster_may_come_later_than_the_reporter(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    away = iter(range(2))

    def open_instance() -> DagsterInstance:
        if next(away, None) is not None:
            raise OSError("the database is away")
        return DagsterInstance.from_ref(shop.instance.get_ref())

    reporter = Reporter(shop.launcher.open_client(), open_instance, "default", QUICK)
    with ExitStack() as stack:
        stack.enter_context(in_thread(reporter.run))
        stack.callback(reporter.stop)
        coordinator.end(run_id, KILLED)
        wait_for_status(shop, run_id, FAILURE)


def test_a_reporter_leaves_no_thread(shop: Shop, coordinator: PlacingCoordinator) -> None:
    with reporting(shop):
        wait_until(lambda: coordinator.reporters, "the reporter listens")
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("runyard")]
    assert ours == []
