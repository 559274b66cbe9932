"""Runs take each of Dagster's own ways to an agent, and each end finds its way back."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from end_to_end.support.stage import CANCELED, FAILURE, NODE, SUCCESS, Stage, kill, open_stage
from end_to_end.support.webserver import WebServer
from harness.waiting import wait_until

from runyard.v1 import run_pb2

MONITORING = {
    "run_monitoring": {"enabled": True, "poll_interval_seconds": 1, "max_resume_run_attempts": 1},
}


@dataclass(frozen=True)
class FullStage:
    """A stage with Dagster's daemon and web server."""

    stage: Stage
    web: WebServer


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullStage]:
    with open_stage(tmp_path_factory.mktemp("project"), MONITORING) as stage:
        stage.site.start_daemon()
        yield FullStage(stage, WebServer(stage.site.start_web_server(), stage.site.location))


@pytest.fixture
def stage(full: FullStage) -> Stage:
    return full.stage


def assert_ran_once_on_the_agent(stage: Stage, run_id: str) -> None:
    stage.wait_for_status(run_id, SUCCESS)
    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_SUCCEEDED
    assert stage.cluster.run(run_id).node == NODE
    assert len(stage.ground.starts(run_id)) == 1


def test_a_run_from_the_queue_of_the_daemon_succeeds_on_an_agent(stage: Stage) -> None:
    assert_ran_once_on_the_agent(stage, stage.launch("succeed"))


def test_a_run_launched_in_the_web_server_succeeds_on_an_agent(full: FullStage) -> None:
    assert_ran_once_on_the_agent(full.stage, full.web.launch("succeed"))


def test_a_run_launched_by_the_command_line_succeeds_on_an_agent(stage: Stage) -> None:
    run_id = str(uuid.uuid4())
    command = stage.site.start_command(
        *("job", "launch", "--workspace", str(stage.site.workspace_file)),
        *("--job", "succeed", "--run-id", run_id),
    )
    assert command.process.wait(60) == 0, command.output()
    assert_ran_once_on_the_agent(stage, run_id)


def test_a_run_terminated_in_the_web_server_is_canceled(full: FullStage) -> None:
    run_id = full.stage.launch_busy("wait")
    assert full.web.terminate(run_id) == "TerminateRunSuccess"
    full.stage.wait_for_status(run_id, CANCELED)
    assert full.stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_STOPPED


def test_a_failing_op_fails_the_run_while_its_worker_ends_well(stage: Stage) -> None:
    run_id = stage.launch("fail")
    stage.wait_for_status(run_id, FAILURE)
    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_SUCCEEDED
    assert "break_down" in stage.failure(run_id)


def test_run_monitoring_resumes_the_run_of_a_killed_worker_as_its_next_attempt(stage: Stage) -> None:
    run_id = stage.launch_busy("wait")
    first = stage.cluster.run(run_id)
    kill(first.pid)
    second = wait_until(
        lambda: run if (run := stage.cluster.run(run_id)).resume_number == 1 else None,
        lambda: stage.describe(run_id),
    )
    assert second.attempt > first.attempt
    stage.wait_until_busy(run_id, starts=2)
    stage.ground.release(run_id)
    stage.wait_for_status(run_id, SUCCESS)
    assert len(stage.ground.starts(run_id)) == 2
