"""The run worker enters Dagster as `dagster api` does, without its arguments ever being seen."""

import os
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent.node_side import KEY, Node
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.code_pointer import FileCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, bootstrap_standalone_recon_job
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import serialize_value

from runyard.agent.core.model import Outcome, OutcomeKind
from runyard.agent.drivers.process.driver import worker_command
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectory

CODE = """
import os, sys
import dagster as dg

@dg.op
def look() -> None:
    import facts, logs  # modules beside the worker's script have these names too
    assert facts.OURS and logs.OURS
    assert "RUNYARD_ARGS_FD" not in os.environ
    print("sys.argv is", sys.argv)

@dg.op
def fail() -> None:
    raise RuntimeError("no luck")

@dg.job(executor_def=dg.in_process_executor)
def good() -> None:
    look()

@dg.job(executor_def=dg.multiprocess_executor)
def good_in_processes() -> None:
    look()

@dg.job(executor_def=dg.in_process_executor)
def bad() -> None:
    fail()
"""


@dataclass(frozen=True)
class Project:
    """A Dagster instance, and a user's code that its runs execute."""

    home: Path
    code: Path
    instance: DagsterInstance

    def new_run(self, job: str) -> tuple[DagsterRun, ReconstructableJob]:
        file = str(self.code / "pipelines.py")
        found = bootstrap_standalone_recon_job(FileCodePointer(file, job, str(self.code)))
        run = self.instance.create_run_for_job(
            found.get_definition(),
            status=DagsterRunStatus.STARTING,
            job_code_origin=found.get_python_origin(),
        )
        return run, found

    def status(self, run: DagsterRun) -> DagsterRunStatus:
        now = self.instance.get_run_by_id(run.run_id)
        assert now is not None
        return now.status

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }

    async def execute(
        self, node: Node, verb: str, run: DagsterRun, args: str
    ) -> tuple[Outcome, RunDirectory]:
        command = worker_command(sys.executable, verb, run.run_id)
        spec = SpecRecord(command, self.environment(), cwd=str(self.code), worker_args=args)
        directory = await node.start(spec)
        return await node.outcome(), directory


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    home, code = tmp_path / "home", tmp_path / "code"
    home.mkdir()
    code.mkdir()
    (code / "pipelines.py").write_text(CODE)
    for name in ("facts", "logs"):
        (code / f"{name}.py").write_text("OURS = True")
    with DagsterInstance.local_temp(str(home)) as instance:
        yield Project(home, code, instance)


async def test_a_run_executes_in_processes_of_its_own_to_its_success(node: Node, project: Project) -> None:
    run, found = project.new_run("good_in_processes")
    args = serialize_value(ExecuteRunArgs(found.get_python_origin(), run.run_id, project.instance.get_ref()))
    outcome, _ = await project.execute(node, "execute_run", run, args)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome.stderr_tail
    assert project.status(run) is DagsterRunStatus.SUCCESS


async def test_a_failed_run_exits_as_it_does_under_dagster_api(node: Node, project: Project) -> None:
    run, found = project.new_run("bad")
    origin, ref = found.get_python_origin(), project.instance.get_ref()
    args = serialize_value(ExecuteRunArgs(origin, run.run_id, ref, set_exit_code_on_failure=True))
    outcome, _ = await project.execute(node, "execute_run", run, args)
    assert outcome.exit_code == 1
    assert project.status(run) is DagsterRunStatus.FAILURE


async def test_a_run_is_resumed_with_its_arguments_out_of_sight(node: Node, project: Project) -> None:
    run, found = project.new_run("good")
    args = serialize_value(ResumeRunArgs(found.get_python_origin(), run.run_id, project.instance.get_ref()))
    outcome, directory = await project.execute(node, "resume_run", run, args)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome.stderr_tail
    assert project.status(run) is DagsterRunStatus.SUCCESS
    seen = directory.stdout.read_text() + directory.stderr.read_text()
    assert "sys.argv is ['dagster', 'api', 'resume_run']" in seen


async def test_an_interpreter_without_dagster_is_named(node: Node, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    await node.start(SpecRecord(worker_command(python, "execute_run", "r"), {}, worker_args="{}"))
    outcome = await node.outcome()
    assert outcome.exit_code == os.EX_CONFIG
    assert outcome.stderr_tail == f"runyard: {python} has no dagster; install it there\n"


async def test_the_script_refuses_to_run_without_a_shim(node: Node) -> None:
    await node.start(SpecRecord(worker_command("", "execute_run", "r"), {}))
    outcome = await node.outcome(KEY)
    assert outcome.exit_code == os.EX_USAGE
    assert "started by Runyard's shim only" in outcome.stderr_tail
