"""What run monitoring hears of a worker's health, what it does with it, and the text for people."""

import time

import grpc
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from harness.waiting import wait_until
from launcher.conftest import OpenShop
from launcher.placing_coordinator import NODE, PID, PlacingCoordinator
from launcher.shop import Shop

from runyard.client import CoordinatorUnreachable
from runyard.v1 import launch_pb2, run_pb2

STARTED = DagsterRunStatus.STARTED
FAILURE = DagsterRunStatus.FAILURE
SUCCESS = DagsterRunStatus.SUCCESS

SUCCEEDED = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_SUCCEEDED, exit_code=0)
OUT_OF_MEMORY = run_pb2.Outcome(
    kind=run_pb2.OUTCOME_KIND_OOM_KILLED,
    signal=9,
    peak_rss_bytes=3 * 2**30,
    stderr_tail="loading the catalogue\nall of it",
)


def health(shop: Shop, run_id: str) -> CheckRunHealthResult:
    return shop.launcher.check_run_worker_health(shop.run(run_id))


def monitored(new_shop: OpenShop, resumes: int = 0) -> Shop:
    return new_shop(
        {},
        {"run_monitoring": {"enabled": True, "max_resume_run_attempts": resumes, "poll_interval_seconds": 1}},
    )


def test_a_worker_on_a_silent_node_is_running(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    coordinator.begin(run_id)
    coordinator.lose_sight(run_id)
    seen = health(shop, run_id)
    assert seen.status == WorkerStatus.RUNNING
    assert "node is silent" in (seen.msg or "")
    assert "Not heard of for 40 s." in (seen.msg or "")
    assert seen.run_worker_id == f"{run_id}/0"


def test_a_worker_that_is_over_has_failed_and_the_message_says_why(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.begin(run_id)
    coordinator.end(run_id, OUT_OF_MEMORY)
    seen = health(shop, run_id)
    assert seen.status == WorkerStatus.FAILED
    assert seen.run_worker_id == f"{run_id}/0"
    assert seen.msg == (
        "The run worker was killed because it ran out of memory (peak 3.0 GiB) "
        f"on node {NODE} of cluster main (attempt 0, pid {PID})."
    )


def test_a_run_that_the_coordinator_never_had_is_not_found(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    seen = shop.launcher.check_run_worker_health(shop.new_run())
    assert seen.status == WorkerStatus.NOT_FOUND


def test_both_properties_that_switch_monitoring_on_are_true(shop: Shop) -> None:
    assert shop.launcher.supports_check_run_worker_health is True
    assert shop.launcher.supports_resume_run is True


def test_an_unreachable_coordinator_is_an_error_not_a_status(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.stop()
    with pytest.raises(CoordinatorUnreachable):
        health(shop, run_id)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED]
)
def test_monitoring_leaves_a_run_alone_when_the_coordinator_has_no_answer(
    new_shop: OpenShop, coordinator: PlacingCoordinator, code: grpc.StatusCode
) -> None:
    shop = monitored(new_shop, resumes=1)
    run_id = shop.launch_and_start()
    coordinator.fail("GetRun", code, "no answer today")
    (error,) = shop.monitor_once()
    assert "no answer today" in error
    assert shop.status(run_id) == STARTED
    assert len(coordinator.requests("LaunchRun")) == 2  # without and with the snapshot; no resume


def test_monitoring_leaves_a_run_on_a_silent_node_alone(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = monitored(new_shop, resumes=1)
    run_id = shop.launch_and_start()
    coordinator.begin(run_id)
    coordinator.lose_sight(run_id)
    assert shop.monitor_once() == []
    assert shop.status(run_id) == STARTED


def test_monitoring_fails_a_run_whose_worker_left_without_a_word(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = monitored(new_shop)
    run_id = shop.launch_and_start()
    coordinator.end(run_id, SUCCEEDED)
    assert shop.monitor_once() == []
    assert shop.status(run_id) == FAILURE


def test_monitoring_believes_a_worker_that_wrote_its_success(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = monitored(new_shop, resumes=1)
    run_id = shop.launch_and_start()
    coordinator.end(run_id, SUCCEEDED)
    stale = shop.run(run_id)
    shop.worker_writes(run_id, DagsterEventType.PIPELINE_SUCCESS)
    assert shop.launcher.check_run_worker_health(stale).status == WorkerStatus.FAILED
    assert shop.monitor_once() == []
    assert shop.status(run_id) == SUCCESS


def test_monitoring_resumes_a_run_and_gives_it_up_after_the_last_attempt(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = monitored(new_shop, resumes=1)
    run_id = shop.launch_and_start()
    coordinator.end(run_id, OUT_OF_MEMORY)
    assert shop.monitor_once() == []
    assert shop.status(run_id) == STARTED
    assert coordinator.runs[run_id].attempt == 1
    assert coordinator.runs[run_id].phase == run_pb2.PHASE_ASSIGNED
    assert shop.instance.count_resume_run_attempts(run_id) == 1

    assert shop.monitor_once() == []  # the second worker is on its way: it counts as running
    assert shop.status(run_id) == STARTED

    coordinator.end(run_id, OUT_OF_MEMORY)
    assert shop.monitor_once() == []
    assert shop.status(run_id) == FAILURE
    (failure,) = shop.events(run_id, DagsterEventType.PIPELINE_FAILURE)
    assert "killed because it ran out of memory" in (failure.message or "")


def test_a_run_that_does_not_start_in_time_fails_with_all_that_is_known_of_its_worker(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop({}, {"run_monitoring": {"enabled": True, "start_timeout_seconds": 1}})
    coordinator.waits_because = "no node has the label gpu=a100"
    run_id = shop.launch()
    launch_time = shop.instance.get_run_stats(run_id).launch_time
    assert launch_time
    wait_until(lambda: time.time() - launch_time >= 1, "a second since the launch")
    assert shop.monitor_once() == []
    assert shop.status(run_id) == FAILURE
    (failure,) = shop.events(run_id, DagsterEventType.PIPELINE_FAILURE)
    assert "Runyard: Attempt 0 is QUEUED. No node has the label gpu=a100." in (failure.message or "")


def test_debug_info_of_a_live_worker_shows_the_end_of_its_stderr(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.begin(run_id)
    lines = "".join(f"line {number}\n" for number in range(100))
    coordinator.logs[run_id, launch_pb2.LOG_STREAM_STDERR] = lines.encode()
    coordinator.events[run_id] = [
        launch_pb2.RunEvent(phase=run_pb2.PHASE_ASSIGNED, node=NODE, message="assigned to node-1")
    ]
    info = shop.launcher.get_run_worker_debug_info(shop.run(run_id)) or ""
    assert "phase: RUNNING" in info
    assert f"node: {NODE}" in info
    assert f"pid: {PID}" in info
    assert "ASSIGNED node-1 assigned to node-1" in info
    assert info.endswith("line 98\n  line 99")
    assert "line 75" in info
    assert "line 74" not in info


def test_debug_info_without_logs_does_not_ask_the_node(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    coordinator.begin(run_id)
    info = shop.launcher.get_run_worker_debug_info(shop.run(run_id), include_container_logs=False)
    assert info
    assert "stderr" not in info
    assert coordinator.requests("ReadLogs") == []


def test_debug_info_of_a_dead_worker_needs_its_node_no_more(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.begin(run_id)
    coordinator.end(run_id, OUT_OF_MEMORY)
    info = shop.launcher.get_run_worker_debug_info(shop.run(run_id)) or ""
    assert "outcome: OOM_KILLED" in info
    assert "peak memory: 3.0 GiB" in info
    assert "all of it" in info
    assert coordinator.requests("ReadLogs") == []


def test_debug_info_survives_a_node_and_a_coordinator_that_do_not_answer(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.begin(run_id)
    coordinator.fail("ReadLogs", grpc.StatusCode.UNAVAILABLE, "the node is silent")
    assert "not readable" in (shop.launcher.get_run_worker_debug_info(shop.run(run_id)) or "")
    coordinator.stop()
    assert "cannot be reached" in (shop.launcher.get_run_worker_debug_info(shop.run(run_id)) or "")
