"""From a Dagster run to a launch at the coordinator."""

import json

import grpc
import pytest
from dagster import DagsterRunStatus
from dagster._core.launcher import LaunchRunContext, ResumeRunContext
from dagster._core.storage.dagster_run import DagsterRun
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import deserialize_value, serialize_value
from google.protobuf.duration_pb2 import Duration
from launcher.conftest import OpenShop
from launcher.placing_coordinator import CLUSTER, NODE, PlacingCoordinator
from launcher.shop import CONTAINER_CONTEXT, IMAGE, LOCATION, Shop

from runyard.launcher.errors import InvalidLauncherConfig, NotLaunched
from runyard.launcher.tags import WRITTEN
from runyard.v1 import placement_pb2, run_pb2

FAILURE = DagsterRunStatus.FAILURE
STARTING = DagsterRunStatus.STARTING


def resume(shop: Shop, run_id: str, number: int) -> DagsterRun:
    return shop.instance.resume_run(run_id, shop.workspace, number)


def test_a_launch_carries_what_the_worker_needs(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch()
    spec = coordinator.launched(run_id)
    args = deserialize_value(spec.worker_args, ExecuteRunArgs)
    assert spec.kind == run_pb2.LAUNCH_KIND_EXECUTE
    assert spec.resume_number == 0
    assert args.run_id == run_id
    assert args.instance_ref == shop.instance.get_ref()
    assert args.job_origin == shop.run(run_id).job_code_origin
    assert not args.set_exit_code_on_failure
    assert spec.environment == {"DAGSTER_RUN_JOB_NAME": "open_shop"}
    assert spec.deployment == "default"
    assert shop.status(run_id) == STARTING


def test_a_launch_says_where_the_code_lives(shop: Shop, coordinator: PlacingCoordinator) -> None:
    spec = coordinator.launched(shop.launch())
    origin = spec.code_origin
    assert (origin.location, origin.repository, origin.job) == (LOCATION, "__repository__", "open_shop")
    assert origin.executable
    assert origin.working_directory == str(shop.home)
    assert origin.image == IMAGE
    assert json.loads(origin.container_context_json) == CONTAINER_CONTEXT


def test_a_launch_carries_the_tags_of_run_and_job(shop: Shop, coordinator: PlacingCoordinator) -> None:
    spec = coordinator.launched(shop.launch({"customer": "o'brien"}))
    assert spec.tags["customer"] == "o'brien"
    assert spec.tags["team"] == "front desk"


def test_the_snapshot_travels_once(shop: Shop, coordinator: PlacingCoordinator) -> None:
    first, second = shop.launch(), shop.launch()
    snapshot_id = shop.run(first).job_snapshot_id
    assert snapshot_id
    assert coordinator.launched(second).job_snapshot_id == snapshot_id
    stored = serialize_value(shop.instance.get_job_snapshot(snapshot_id)).encode()
    assert coordinator.snapshots == {snapshot_id: stored}
    assert [len(coordinator.requests(name)) for name in ("LaunchRun", "StoreSnapshot")] == [3, 1]


def test_the_event_log_and_tags_say_where_the_run_went(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch()
    message = f"Runyard accepted the run as attempt 0 on node {NODE} of cluster {CLUSTER}"
    assert shop.messages(run_id) == [message]
    assert shop.metadata(run_id, message) == {
        "cluster": CLUSTER,
        "node": NODE,
        "attempt": 0,
        "run worker": f"{run_id}/0",
    }
    assert shop.run(run_id).tags["runyard/placed_node"] == NODE
    assert shop.run(run_id).tags["runyard/placed_cluster"] == CLUSTER


def test_the_event_log_says_why_a_run_waits(shop: Shop, coordinator: PlacingCoordinator) -> None:
    coordinator.waits_because = "waiting: 0/1 nodes available: 1 without a free slot"
    run_id = shop.launch()
    assert shop.messages(run_id) == [
        "Runyard accepted the run as attempt 0, waiting: 0/1 nodes available: 1 without a free slot"
    ]
    assert not [tag for tag in shop.run(run_id).tags if tag.startswith("runyard/")]


def test_a_launch_that_lost_against_a_stop_says_so_and_fails_nothing(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    run = shop.new_run()
    coordinator.tombstones.add(run.run_id)
    shop.instance.launch_run(run.run_id, shop.workspace)
    (message,) = shop.messages(run.run_id)
    assert "did not start the run" in message
    assert shop.status(run.run_id) == STARTING


def test_a_retry_is_not_bound_to_the_node_of_the_run_before(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    parent = shop.run(shop.launch({"runyard/cluster": "main"}))
    coordinator.waits_because = "no node is ready"
    retry = shop.launch({**parent.tags, "runyard/outcome": "oom_killed", "runyard/exit_cause": "oom_killed"})
    spec = coordinator.launched(retry)
    assert spec.tags["runyard/cluster"] == "main"
    assert not spec.tags.keys() & WRITTEN
    assert shop.run(retry).tags["runyard/placed_node"] == "not yet"
    assert shop.run(retry).tags["runyard/outcome"] == "not yet"
    assert shop.run(retry).tags["runyard/exit_cause"] == "not yet"


def test_settings_become_requirements_and_policies(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop(
        {
            "deployment": "night",
            "cluster": "gpu",
            "labels": {"zone": "a|b", "disk": "hdd"},
            "grace_seconds": 0,
            "max_queue_seconds": 0.5,
            "start_timeout_seconds": 90,
            "on_disconnect": "stop_after=5m",
        }
    )
    spec = coordinator.launched(shop.launch({"runyard/labels": "disk=ssd"}))
    assert spec.deployment == "night"
    assert spec.requirements == placement_pb2.Requirements(cluster="gpu", labels=["disk=hdd", "zone=a|b"])
    assert spec.tags["runyard/labels"] == "disk=ssd"
    assert spec.policies == run_pb2.Policies(
        max_queue_time=Duration(nanos=500_000_000),
        start_timeout=Duration(seconds=90),
        grace=Duration(),
        stop_after=Duration(seconds=300),
    )


def test_policies_that_nobody_set_are_absent(shop: Shop, coordinator: PlacingCoordinator) -> None:
    assert coordinator.launched(shop.launch()).policies == run_pb2.Policies()


def test_a_launch_says_how_steps_run_and_which(shop: Shop, coordinator: PlacingCoordinator) -> None:
    whole = coordinator.launched(shop.launch())
    assert (whole.execution_config_json, list(whole.step_keys)) == ("", [])
    execution = {"config": {"multiprocess": {"max_concurrent": 2}}}
    run = shop.new_run(run_config={"execution": execution}, step_keys=["greet"])
    shop.instance.launch_run(run.run_id, shop.workspace)
    spec = coordinator.launched(run.run_id)
    assert (json.loads(spec.execution_config_json), list(spec.step_keys)) == (execution, ["greet"])


def test_a_tag_that_the_coordinator_cannot_understand_fails_the_run_with_its_words(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    words = "tag runyard/grace of the run: 'soon' is not a span of time; write seconds as 90"
    coordinator.fail("LaunchRun", grpc.StatusCode.INVALID_ARGUMENT, words)
    run = shop.new_run({"runyard/grace": "soon"})
    with pytest.raises(NotLaunched, match=words):
        shop.instance.launch_run(run.run_id, shop.workspace)
    assert shop.status(run.run_id) == FAILURE
    assert words in shop.messages(run.run_id)[0]


def test_environment_variables_come_from_the_launching_process(
    new_shop: OpenShop, coordinator: PlacingCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "a=b'c\"")
    shop = new_shop({"env_vars": ["SHOP_TOKEN", "MODE=night", "EMPTY="]})
    environment = coordinator.launched(shop.launch()).environment
    assert environment == {
        "SHOP_TOKEN": "a=b'c\"",
        "MODE": "night",
        "EMPTY": "",
        "DAGSTER_RUN_JOB_NAME": "open_shop",
    }


def test_an_environment_variable_that_is_not_set_fails_the_run_by_name(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop({"env_vars": ["SHOP_NEVER_SET"]})
    run = shop.new_run()
    with pytest.raises(InvalidLauncherConfig, match="SHOP_NEVER_SET"):
        shop.instance.launch_run(run.run_id, shop.workspace)
    assert shop.status(run.run_id) == FAILURE
    assert coordinator.calls == []


def test_a_resume_runs_resume_run_under_its_number(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run_id = shop.launch_and_start()
    coordinator.end(run_id, run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_OOM_KILLED))
    resume(shop, run_id, 1)
    spec = coordinator.launched(run_id, resume_number=1)
    assert spec.kind == run_pb2.LAUNCH_KIND_RESUME
    assert deserialize_value(spec.worker_args, ResumeRunArgs).instance_ref == shop.instance.get_ref()
    assert coordinator.runs[run_id].attempt == 1
    assert spec.requirements == placement_pb2.Requirements()


def test_a_resume_without_a_number_is_the_first(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run = shop.run(shop.launch_and_start())
    shop.launcher.resume_run(ResumeRunContext(run, shop.workspace))
    assert coordinator.launched(run.run_id, resume_number=1).kind == run_pb2.LAUNCH_KIND_RESUME


def test_a_launch_is_repeated_while_the_coordinator_is_away(
    shop: Shop, coordinator: PlacingCoordinator
) -> None:
    coordinator.fail("LaunchRun", grpc.StatusCode.UNAVAILABLE, "recovering", times=2)
    run_id = shop.launch()
    assert coordinator.runs[run_id].phase == run_pb2.PHASE_ASSIGNED
    assert shop.status(run_id) == STARTING


def test_a_launch_that_nobody_takes_fails_the_run_within_its_deadline_and_names_the_address(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop({"launch_timeout_seconds": 0.5})
    coordinator.stop()
    run = shop.new_run()
    with pytest.raises(NotLaunched, match=coordinator.address):
        shop.instance.launch_run(run.run_id, shop.workspace)
    assert shop.status(run.run_id) == FAILURE
    assert coordinator.address in shop.messages(run.run_id)[0]


def test_a_refused_launch_fails_the_run_with_the_reason(shop: Shop, coordinator: PlacingCoordinator) -> None:
    coordinator.fail("LaunchRun", grpc.StatusCode.FAILED_PRECONDITION, "no node has the label gpu=a100")
    run = shop.new_run({"runyard/labels": "gpu=a100"})
    with pytest.raises(NotLaunched, match="no node has the label gpu=a100"):
        shop.instance.launch_run(run.run_id, shop.workspace)
    assert shop.status(run.run_id) == FAILURE


def test_a_run_without_code_origin_fails_with_the_remedy(shop: Shop, coordinator: PlacingCoordinator) -> None:
    run = shop.new_run()._replace(job_code_origin=None)
    with pytest.raises(NotLaunched, match="Submit it through a workspace"):
        shop.launcher.launch_run(LaunchRunContext(run, shop.workspace))
    assert coordinator.calls == []


def test_a_launch_counts_although_its_event_cannot_be_written(
    shop: Shop, coordinator: PlacingCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(shop.instance, "report_engine_event", broken)
    run_id = shop.launch()
    assert coordinator.runs[run_id].phase == run_pb2.PHASE_ASSIGNED
    assert shop.status(run_id) == STARTING
