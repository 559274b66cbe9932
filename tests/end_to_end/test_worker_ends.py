"""However a worker ends, Dagster learns of it at once and learns why."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from unittest import mock

import dagster as dg
import psutil
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value
from dagster_shared.record import copy
from end_to_end.support.drivers import processes_only
from end_to_end.support.stage import CANCELED, FAILURE, NODE, SUCCESS, Stage, is_alive, kill, open_stage
from harness.dagster_site import LAUNCH_IN_THE_CALLER
from harness.waiting import wait_until

from runyard.common.humanize import byte_size
from runyard.launcher import launcher
from runyard.launcher.reporter.reporter import Reporter, Timing
from runyard.v1 import run_pb2

AT_ONCE = 10.0
"""Seconds in which Dagster must know, on a machine that may be busy; on an idle one it takes about one.

Shorter than every wait of ours that could stand in for the news: leases, sweeps and looks at engines.
"""

IMPATIENT = Timing(reconcile_every=3.0, orphan_grace=12.0)
"""Of the reporter: as usual, but it looks for workers that outlive their runs more often, and sooner."""

NARROW = "narrow"
"""A cluster that has a single slot, for runs that are tagged with it."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("project")
    with (
        mock.patch.object(launcher, "Reporter", partial(Reporter, timing=IMPATIENT)),
        open_stage(folder, LAUNCH_IN_THE_CALLER, launcher={"cluster": "default"}) as stage,
    ):
        stage.cluster.start_agent("gate", NARROW, slots=1)
        yield stage


@dataclass(frozen=True)
class Abandoned:
    """A run that Dagster ended while its worker went on."""

    run_id: str
    pid: int


@pytest.fixture(scope="module", autouse=True)
def abandoned(stage: Stage) -> Abandoned:
    """A run that was ended by hand before all tests: its worker is given a while, which they fill."""
    run_id = stage.launch_busy("wait")
    run = stage.site.instance.get_run_by_id(run_id)
    assert run is not None
    stage.site.instance.report_run_failed(run, "given up by hand")
    return Abandoned(run_id, stage.worker(run_id).pid)


def test_a_killed_worker_fails_its_run_with_the_cause_and_the_end_of_its_stderr(stage: Stage) -> None:
    run_id = stage.launch_busy("wait")
    kill(stage.worker(run_id).pid)
    stage.wait_for_status(run_id, FAILURE, timeout=AT_ONCE)
    message = stage.failure(run_id)
    assert "SIGKILL" in message
    assert NODE in message
    assert f"{run_id} begins" in stage.history(run_id)


def exit_cause(stage: Stage, run_id: str) -> str:
    """The tag that tells programs why the run is over."""
    run = stage.site.instance.get_run_by_id(run_id)
    assert run is not None
    return run.tags["runyard/exit_cause"]


def told_after(stage: Stage, run_id: str) -> float:
    """Seconds from the end of a worker to Dagster's failure of its run."""
    run = stage.find(run_id)
    assert run is not None
    (failure,) = stage.site.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    return failure.timestamp - run.finished_at.ToNanoseconds() / 1e9


@pytest.mark.parametrize("job", ["eat", "eat_in_child"])
def test_a_run_that_eats_memory_ends_at_its_limit_and_its_neighbour_lives_on(stage: Stage, job: str) -> None:
    neighbour = stage.launch_busy("wait", memory="1Gi")
    run_id = stage.launch_busy(job, memory="700Mi")
    outcome = stage.wait_for_end(run_id)
    stage.wait_for_status(run_id, FAILURE, timeout=AT_ONCE)
    assert outcome.kind == run_pb2.OUTCOME_KIND_OOM_KILLED
    assert outcome.memory_limit_bytes == 700 << 20
    peak = byte_size(outcome.peak_rss_bytes)
    assert f"killed because it ran out of memory (limit 700.0 MiB, peak {peak})" in stage.failure(run_id)
    assert "700.0 MiB" in stage.history(run_id)
    assert exit_cause(stage, run_id) == "oom_killed"
    assert told_after(stage, run_id) < AT_ONCE
    assert is_alive(stage.worker(neighbour).pid)
    stage.ground.release(neighbour)
    stage.wait_for_status(neighbour, SUCCESS)


@pytest.mark.parametrize(("job", "cause"), [("crash", "signal_SIGSEGV"), ("leave", "exit_code_3")])
def test_the_end_of_a_worker_has_a_word_that_sensors_can_read(stage: Stage, job: str, cause: str) -> None:
    run_id = stage.launch(job)
    stage.wait_for_status(run_id, FAILURE)
    assert exit_cause(stage, run_id) == cause


def test_killing_a_worker_ends_the_children_that_run_its_steps(stage: Stage) -> None:
    run_id = stage.launch_busy("wait_in_child")
    worker = stage.worker(run_id)
    children = [child.pid for child in psutil.Process(worker.pid).children(recursive=True)]
    assert children
    kill(worker.pid)
    stage.wait_for_status(run_id, FAILURE, timeout=AT_ONCE)
    wait_until(
        lambda: not any(map(is_alive, children)),
        lambda: f"alive: {[child for child in children if is_alive(child)]}",
    )


def test_a_worker_killed_while_it_imports_fails_its_run(stage: Stage) -> None:
    with stage.ground.held_imports():
        run_id = stage.launch("succeed")
        stage.ground.wait_for_import()
        kill(stage.worker(run_id).pid)
        stage.wait_for_status(run_id, FAILURE, timeout=AT_ONCE)
    assert "SIGKILL" in stage.failure(run_id)
    assert stage.ground.starts(run_id) == []


def test_a_run_canceled_while_it_waits_for_a_slot_never_starts(stage: Stage) -> None:
    holder = stage.launch_busy("wait", cluster=NARROW)
    waiting = stage.launch("succeed", cluster=NARROW)
    stage.wait_for_phase(waiting, run_pb2.PHASE_QUEUED)
    assert stage.terminate(waiting)
    stage.wait_for_status(waiting, CANCELED, timeout=AT_ONCE)
    stage.ground.release(holder)
    stage.wait_for_status(holder, SUCCESS)
    assert stage.ground.starts(waiting) == []


def test_a_run_canceled_while_its_worker_imports_is_canceled(stage: Stage) -> None:
    with stage.ground.held_imports():
        run_id = stage.launch("succeed", grace="1")
        stage.ground.wait_for_import()
        assert stage.terminate(run_id)
        # Dagster holds interrupts back while it imports user code, so the worker uses up its grace.
        stage.wait_for_status(run_id, CANCELED, timeout=1 + AT_ONCE)
    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_STOPPED
    assert stage.ground.starts(run_id) == []


def test_a_run_canceled_at_work_is_interrupted_and_cannot_be_canceled_again(stage: Stage) -> None:
    run_id = stage.launch_busy("wait")
    assert stage.terminate(run_id)
    stage.wait_for_status(run_id, CANCELED)
    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_STOPPED
    assert not stage.terminate(run_id)
    assert stage.site.status(run_id) == CANCELED


def test_a_worker_that_swallows_interrupts_is_killed_after_its_grace(stage: Stage) -> None:
    run_id = stage.launch_busy("resist", grace="1")
    assert stage.terminate(run_id)
    stage.wait_for_status(run_id, CANCELED, timeout=1 + AT_ONCE)
    outcome = stage.wait_for_end(run_id)
    assert (outcome.kind, outcome.signal) == (run_pb2.OUTCOME_KIND_STOPPED, 9)


def test_an_import_error_in_user_code_is_shown_in_dagster(stage: Stage) -> None:
    with stage.ground.broken_imports():
        run_id = stage.launch("succeed")
        stage.wait_for_status(run_id, FAILURE)
    assert "the flux capacitor is not installed" in stage.history(run_id)


def test_a_missing_executable_fails_the_run_and_is_named(stage: Stage) -> None:
    run = stage.create("succeed")
    repository = origin_of(run).repository_origin
    run_id = launch_from(stage, run, repository._replace(executable_path="/no/such/python"))
    stage.wait_for_status(run_id, FAILURE)
    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert "/no/such/python" in stage.failure(run_id)
    assert exit_cause(stage, run_id) == "executable_missing"


@processes_only
def test_a_missing_working_directory_fails_the_run_and_is_named(stage: Stage) -> None:
    run = stage.create("succeed")
    repository = origin_of(run).repository_origin
    assert isinstance(repository.code_pointer, ModuleCodePointer)
    pointer = repository.code_pointer._replace(working_directory="/no/such/project")
    run_id = launch_from(stage, run, repository._replace(code_pointer=pointer))
    stage.wait_for_status(run_id, FAILURE)
    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert "/no/such/project" in stage.failure(run_id)
    assert exit_cause(stage, run_id) == "working_directory_missing"


def test_a_run_that_is_not_in_storage_ends_with_the_traceback_of_its_worker(stage: Stage) -> None:
    run = stage.create("succeed")
    stage.site.instance.delete_run(run.run_id)
    stage.cluster.client.launch_run(
        run_pb2.LaunchSpec(
            run_id=run.run_id,
            kind=run_pb2.LAUNCH_KIND_EXECUTE,
            worker_args=serialize_value(
                ExecuteRunArgs(origin_of(run), run.run_id, stage.site.instance.get_ref())
            ),
            code_origin=run_pb2.CodeOrigin(job=run.job_name, executable=sys.executable),
            deployment="another",
        )
    )
    outcome = stage.wait_for_end(run.run_id)
    assert (outcome.kind, outcome.exit_code) == (run_pb2.OUTCOME_KIND_FAILED, 1)
    assert run.run_id in outcome.stderr_tail
    assert stage.site.instance.get_run_by_id(run.run_id) is None


def test_a_run_ended_by_hand_in_dagster_loses_its_worker(stage: Stage, abandoned: Abandoned) -> None:
    assert stage.wait_for_end(abandoned.run_id, timeout=90).kind == run_pb2.OUTCOME_KIND_STOPPED
    assert not is_alive(abandoned.pid)
    assert "given up by hand" in stage.failure(abandoned.run_id)


def origin_of(run: dg.DagsterRun) -> JobPythonOrigin:
    assert run.job_code_origin is not None
    return run.job_code_origin


def launch_from(stage: Stage, run: dg.DagsterRun, repository: RepositoryPythonOrigin) -> str:
    """Launches a run as if its code were elsewhere."""
    origin = origin_of(run)._replace(repository_origin=repository)
    stage.site.instance.delete_run(run.run_id)
    stage.site.instance.add_run(copy(run, job_code_origin=origin))
    return stage.site.submit(run)
