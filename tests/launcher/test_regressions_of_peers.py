"""What other run launchers got wrong, one test for each trap."""

import inspect
import os
import socket
from pathlib import Path

import grpc
import pytest
import yaml
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import deserialize_value
from google.protobuf.duration_pb2 import Duration
from harness.waiting import wait_until
from launcher.conftest import OpenShop
from launcher.placing_coordinator import PlacingCoordinator
from launcher.shop import Shop, write_home
from launcher.support.reporters import reporting

import runyard.launcher
from runyard.launcher import RunyardRunLauncher
from runyard.launcher.errors import NotTerminated
from runyard.v1 import placement_pb2, run_pb2

STARTED = DagsterRunStatus.STARTED
FAILURE = DagsterRunStatus.FAILURE
CANCELING = DagsterRunStatus.CANCELING

KILLED = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, signal=9, stderr_tail="out of luck")
SUCCEEDED = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_SUCCEEDED, exit_code=0)


@pytest.fixture
def monitored(new_shop: OpenShop) -> Shop:
    return new_shop({}, {"run_monitoring": {"enabled": True}})


def test_monitoring_really_calls_the_health_check(monitored: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = monitored.launch_and_start()
    assert monitored.monitor_once() == []
    assert [request.run_id for request in coordinator.requests("GetRun")] == [run_id]  # type: ignore[attr-defined]


def test_a_resume_resumes_instead_of_executing_again(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop({}, {"run_monitoring": {"enabled": True, "max_resume_run_attempts": 1}})
    run_id = shop.launch_and_start()
    coordinator.end(run_id, KILLED)
    assert shop.monitor_once() == []
    spec = coordinator.launched(run_id, resume_number=1)
    assert spec.kind == run_pb2.LAUNCH_KIND_RESUME
    assert deserialize_value(spec.worker_args, ResumeRunArgs).run_id == run_id


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_a_failed_request_is_not_taken_for_a_missing_worker(
    monitored: Shop, coordinator: PlacingCoordinator, code: grpc.StatusCode
) -> None:
    run_id = monitored.launch_and_start()
    coordinator.fail("GetRun", code)
    assert len(monitored.monitor_once()) == 1
    assert monitored.status(run_id) == STARTED


def test_a_run_without_a_node_can_be_watched_and_stopped(shop: Shop, coordinator: PlacingCoordinator) -> None:
    coordinator.waits_because = "no node is ready"
    run_id = shop.launch()
    assert shop.launcher.check_run_worker_health(shop.run(run_id)).status == WorkerStatus.RUNNING
    assert "QUEUED" in (shop.launcher.get_run_worker_debug_info(shop.run(run_id)) or "")
    assert shop.launcher.terminate(run_id)


def test_the_constructor_connects_nowhere(template: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        home = write_home(tmp_path / "home", {"address": f"127.0.0.1:{server.getsockname()[1]}"})
        with DagsterInstance.from_config(str(home)) as instance:
            assert instance.run_launcher.supports_resume_run
            with pytest.raises(TimeoutError):
                server.accept()


def test_an_unreachable_coordinator_does_not_keep_a_launcher_from_being_made(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    nowhere = new_shop({"address": "127.0.0.1:1", "launch_timeout_seconds": 0.2})
    assert nowhere.launcher.supports_check_run_worker_health
    assert new_shop().launch() in coordinator.runs


def test_terminate_marks_the_run_as_canceling(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    assert shop.launcher.terminate(run_id)
    assert len(shop.events(run_id, DagsterEventType.PIPELINE_CANCELING)) == 1


def test_terminate_does_not_mark_the_run_when_nobody_can_be_told(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run_id = shop.launch_and_start()
    coordinator.stop()
    with pytest.raises(NotTerminated):
        shop.launcher.terminate(run_id)
    assert shop.status(run_id) == STARTED


def test_polling_leaves_no_events(monitored: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = monitored.launch_and_start()
    before = monitored.messages(run_id)
    for _ in range(3):
        monitored.monitor_once()
    assert monitored.messages(run_id) == before


def test_the_last_output_outlives_the_worker(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    with reporting(shop):
        coordinator.end(run_id, KILLED)
        wait_until(lambda: shop.status(run_id) == FAILURE, lambda: shop.status(run_id))
    assert shop.metadata(run_id, "killed by SIGKILL")["stderr"] == "    out of luck"
    assert "out of luck" in (shop.launcher.get_run_worker_debug_info(shop.run(run_id)) or "")


def test_a_zero_is_not_lost_to_a_default(new_shop: OpenShop, coordinator: PlacingCoordinator) -> None:
    shop = new_shop({"grace_seconds": 0, "max_queue_seconds": 0, "start_timeout_seconds": 0})
    zeros = run_pb2.Policies(max_queue_time=Duration(), start_timeout=Duration(), grace=Duration())
    assert coordinator.launched(shop.launch()).policies == zeros


def test_quotes_arrive_as_they_are(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch({"quote": 'it\'s "so" $HOME `id` \n \\'})
    spec = coordinator.launched(run_id)
    assert deserialize_value(spec.worker_args, ExecuteRunArgs).run_id == run_id
    assert spec.tags["quote"] == 'it\'s "so" $HOME `id` \n \\'


def test_the_documented_config_is_valid(tmp_path: Path) -> None:
    documented = inspect.cleandoc(runyard.launcher.__doc__ or "").partition("`dagster.yaml`:\n")[2]
    (tmp_path / "dagster.yaml").write_text(inspect.cleandoc(documented))
    assert "run_launcher" in yaml.safe_load((tmp_path / "dagster.yaml").read_text())
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_launcher, RunyardRunLauncher)
        assert instance.run_launcher.settings.address == "127.0.0.1:7171"


def test_exit_code_zero_is_not_taken_for_success(monitored: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = monitored.launch_and_start()
    coordinator.end(run_id, SUCCEEDED)
    monitored.monitor_once()
    assert monitored.status(run_id) == FAILURE


def test_default_settings_see_the_worker(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    assert shop.launcher.check_run_worker_health(shop.run(run_id)).status == WorkerStatus.RUNNING
    coordinator.end(run_id, KILLED)
    assert shop.launcher.check_run_worker_health(shop.run(run_id)).status == WorkerStatus.FAILED


def test_a_lost_or_wrong_tag_does_not_lose_the_worker(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    shop.instance.add_run_tags(run_id, {"runyard/placed_node": "nowhere", "runyard/placed_cluster": "none"})
    with DagsterInstance.from_ref(shop.instance.get_ref()) as web_server:
        run = web_server.get_run_by_id(run_id)
        assert run
        assert web_server.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        assert web_server.run_launcher.terminate(run_id)
    assert coordinator.runs[run_id].stop_requested


def test_a_process_id_that_lives_again_is_not_the_worker(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    coordinator.begin(run_id)
    coordinator.move(run_pb2.Run(run_id=run_id, pid=os.getpid()))
    coordinator.end(run_id, KILLED)
    assert shop.launcher.check_run_worker_health(shop.run(run_id)).status == WorkerStatus.FAILED


def test_runs_with_the_same_first_letters_are_told_apart(shop: Shop, coordinator: PlacingCoordinator) -> None:
    first, second = shop.new_run(), shop.new_run()
    twin = second._replace(run_id=first.run_id[:8] + second.run_id[8:])
    shop.launcher.launch_run(LaunchRunContext(first, shop.workspace))
    shop.instance.add_run(twin)
    shop.instance.launch_run(twin.run_id, shop.workspace)
    shop.launcher.terminate(twin.run_id)
    assert coordinator.runs[twin.run_id].stop_requested
    assert not coordinator.runs[first.run_id].stop_requested


def test_a_launch_may_be_larger_than_an_argument(shop: Shop, coordinator: PlacingCoordinator) -> None:
    text = "x" * 200_000  # MAX_ARG_STRLEN of Linux is 128 KiB
    assert coordinator.launched(shop.launch({"long": text})).tags["long"] == text


def test_secrets_stay_out_of_the_workers_arguments(
    new_shop: OpenShop, coordinator: PlacingCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "open sesame")
    shop = new_shop({"env_vars": ["SHOP_TOKEN"]})
    spec = coordinator.launched(shop.launch())
    assert spec.environment["SHOP_TOKEN"] == "open sesame"
    assert "open sesame" not in spec.worker_args


def test_a_retry_is_not_sent_to_the_node_that_failed(shop: Shop, coordinator: PlacingCoordinator) -> None:
    parent = shop.run(shop.launch())
    retry = coordinator.launched(shop.launch(parent.tags))
    assert retry.requirements == placement_pb2.Requirements()
    assert not [tag for tag in retry.tags if tag.startswith("runyard/")]
