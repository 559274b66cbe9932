"""Whichever part of Runyard dies, no run is lost and none is started twice."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import psutil
import pytest
from end_to_end.support.drivers import processes_only
from end_to_end.support.stage import CANCELED, FAILURE, LONG, NODE, SUCCESS, Stage, is_alive, kill, open_stage
from harness.dagster_site import LAUNCH_IN_THE_CALLER
from harness.waiting import wait_until

from runyard.v1 import run_pb2

AGENT, COORDINATOR = "agent", "coordinator"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("project"), LAUNCH_IN_THE_CALLER) as stage:
        yield stage


def kill_part(stage: Stage, part: str) -> None:
    child = stage.cluster.coordinator if part == COORDINATOR else stage.cluster.agents[NODE]
    stage.deployment.processes.kill(child)


def start_part(stage: Stage, part: str) -> None:
    if part == COORDINATOR:
        stage.cluster.start_coordinator()
    else:
        stage.cluster.start_agent(NODE, "default")


@pytest.mark.parametrize(
    "parts", [(AGENT,), (COORDINATOR,), (COORDINATOR, AGENT)], ids=lambda parts: " and ".join(parts)
)
def test_runs_live_on_and_end_right_while_a_part_is_killed_and_away(
    stage: Stage, parts: tuple[str, ...]
) -> None:
    enduring, ending, dying = (stage.launch("wait") for _ in range(3))
    for run_id in (enduring, ending, dying):
        stage.wait_until_busy(run_id)
    dying_pid = stage.worker(dying).pid

    for part in parts:
        kill_part(stage, part)
    stage.ground.release(ending)
    kill(dying_pid)
    stage.wait_for_status(ending, SUCCESS)
    wait_until(lambda: not is_alive(dying_pid), f"process {dying_pid} lives after SIGKILL")
    for part in parts:
        start_part(stage, part)

    stage.wait_for_status(dying, FAILURE)
    assert "SIGKILL" in stage.failure(dying)
    assert stage.wait_for_end(ending).kind == run_pb2.OUTCOME_KIND_SUCCEEDED
    stage.ground.release(enduring)
    stage.wait_for_status(enduring, SUCCESS)
    assert stage.wait_for_end(enduring).kind == run_pb2.OUTCOME_KIND_SUCCEEDED
    assert [len(stage.ground.starts(run_id)) for run_id in (enduring, ending, dying)] == [1, 1, 1]


@processes_only
def test_a_run_whose_shim_is_killed_goes_on_and_succeeds(stage: Stage) -> None:
    run_id = stage.launch_busy("wait")
    worker = stage.worker(run_id)
    kill(worker.shim_pid)
    wait_until(lambda: not is_alive(worker.shim_pid), "the shim lives after SIGKILL")
    assert is_alive(worker.pid)
    stage.ground.release(run_id)
    stage.wait_for_status(run_id, SUCCESS)
    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_SUCCEEDED
    assert len(stage.ground.starts(run_id)) == 1


@processes_only
def test_a_worker_killed_after_its_shim_fails_the_run(stage: Stage) -> None:
    run_id = stage.launch_busy("wait")
    worker = stage.worker(run_id)
    kill(worker.shim_pid)
    kill(worker.pid)
    stage.wait_for_status(run_id, FAILURE)
    outcome = stage.wait_for_end(run_id)
    assert (outcome.kind, outcome.signal) == (run_pb2.OUTCOME_KIND_FAILED, 9)
    assert len(stage.ground.starts(run_id)) == 1


@processes_only
def test_a_worker_whose_agent_fork_servers_and_shim_are_killed_is_adopted_and_not_started_again(
    stage: Stage,
) -> None:
    run_id = stage.launch_busy("wait")
    worker = stage.worker(run_id)
    fork_servers = psutil.Process(stage.cluster.agents[NODE].pid).children()
    kill_part(stage, AGENT)
    for pid in (*(server.pid for server in fork_servers), worker.shim_pid):
        kill(pid)
    assert is_alive(worker.pid)
    start_part(stage, AGENT)
    assert stage.wait_for_phase(run_id, run_pb2.PHASE_RUNNING).pid == worker.pid
    stage.ground.release(run_id)
    stage.wait_for_status(run_id, SUCCESS)
    # Who reaps an orphan, and how fast, decides whether its exit code can still be seen.
    assert stage.wait_for_end(run_id).kind in (
        run_pb2.OUTCOME_KIND_SUCCEEDED,
        run_pb2.OUTCOME_KIND_EXIT_UNKNOWN,
    )
    assert stage.site.status(run_id) == SUCCESS
    assert len(stage.ground.starts(run_id)) == 1


def test_a_run_canceled_while_its_agent_is_away_is_canceled_when_the_agent_is_back(stage: Stage) -> None:
    run_id = stage.launch_busy("wait")
    kill_part(stage, AGENT)
    assert stage.terminate(run_id)
    assert stage.site.status(run_id) == dg.DagsterRunStatus.CANCELING
    start_part(stage, AGENT)
    stage.wait_for_status(run_id, CANCELED)
    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_STOPPED


def test_a_launch_waits_for_a_coordinator_that_is_back_in_time(stage: Stage) -> None:
    kill_part(stage, COORDINATOR)
    run = stage.create("succeed")
    with ThreadPoolExecutor(1) as pool:
        launch = pool.submit(stage.site.submit, run)
        wait_until(
            lambda: stage.site.status(run.run_id) == dg.DagsterRunStatus.STARTING,
            lambda: f"Dagster has the run as {stage.site.status(run.run_id)}",
        )
        start_part(stage, COORDINATOR)
        launch.result(timeout=LONG)
    stage.wait_for_status(run.run_id, SUCCESS)
    assert len(stage.ground.starts(run.run_id)) == 1
