"""A Dagster project whose runs go every way that a run can go, and what is left of them to compare."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.node_side import Node
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.code_pointer import FileCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import serialize_value
from harness.waiting import await_until

from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.process.driver import worker_command
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectory

CODE = """
import logging, multiprocessing, os, sys, threading, time
import dagster as dg
import beside

SECRET_ON_IMPORT = os.environ.get("SECRET")

@dg.op
def look(context) -> None:
    import multiprocessing
    assert "RUNYARD_ARGS_FD" not in os.environ
    assert SECRET_ON_IMPORT == os.environ["SECRET"] == "from .env"
    assert dg.DagsterInstance.get().get_run_by_id(context.run_id).job_name == context.job_name
    assert os.environ["DAGSTER_RUN_JOB_NAME"] == context.job_name
    print("argv", sys.argv, "cwd", os.getcwd(), "main", sys.modules["__main__"].__name__)
    print("to stderr", file=sys.stderr)
    logging.getLogger("mine").warning("a warning of mine")
    context.log.info("an info of mine")

@dg.op
def fail() -> None:
    raise RuntimeError("no luck")

@dg.op
def tell() -> None:
    print("edition", beside.EDITION)

@dg.op
def linger() -> None:
    open(os.environ["FLAG"], "w").close()
    time.sleep(60)

@dg.op
def leave() -> None:
    os._exit(3)

@dg.op
def leave_a_thread() -> None:
    def late():
        time.sleep(0.3)
        open(os.environ["FLAG"], "w").close()
    threading.Thread(target=late).start()

@dg.op
def use_pools() -> None:
    for method in ("spawn", "forkserver", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.map(beside.double, [1, 2]) == [2, 4]

@dg.asset
def first() -> int:
    return 1

@dg.asset
def second(first: int) -> int:
    return first + 1

in_process, spawned = dg.in_process_executor, dg.multiprocess_executor
forkserver = dg.multiprocess_executor.configured({"start_method": {"forkserver": {}}}, "forkserver")

def job(name, op, executor=in_process):
    @dg.job(name=name, executor_def=executor)
    def made():
        op()
    return made

defs = dg.Definitions(
    jobs=[
        job("good", look), job("bad", fail), job("long", linger), job("tells", tell), job("leaves", leave),
        job("threaded", leave_a_thread), job("pools", use_pools),
        job("good_spawned", look, spawned), job("good_forkserver", look, forkserver),
        job("bad_spawned", fail, spawned),
        dg.define_asset_job("assets", executor_def=in_process),
    ],
    assets=[first, second],
)
"""


@dataclass(frozen=True)
class History:
    """What is left of a run."""

    code: int | None
    signal: int | None
    status: str
    events: tuple[str, ...]
    output: str
    is_flag_up: bool
    """The case's code came to the place where it raises the flag."""


@dataclass(frozen=True)
class Case:
    """One run, and what is done to it."""

    job: str = "good"
    verb: str = "execute_run"
    status: DagsterRunStatus = DagsterRunStatus.STARTING
    flagged: bool = False
    """Whether a failed run is to show in the exit code."""
    pointer: str = "defs"
    signal: int = 0
    """Sent while the op is at work."""
    is_canceled_first: bool = False
    run_id: str = ""
    """Given to the worker instead of the run's own."""


CASES = {
    "good": Case(),
    "tells": Case("tells"),
    "fails": Case("bad"),
    "fails and shows": Case("bad", flagged=True),
    "leaves": Case("leaves"),
    "threaded": Case("threaded"),
    "pools": Case("pools"),
    "spawned steps": Case("good_spawned"),
    "forkserver steps": Case("good_forkserver"),
    "a spawned step fails": Case("bad_spawned"),
    "assets": Case("assets"),
    "resumed": Case(verb="resume_run"),
    "code cannot be loaded": Case(pointer="nowhere"),
    "run is unknown": Case(run_id="00000000-0000-4000-8000-000000000000"),
    "canceled before": Case(status=DagsterRunStatus.CANCELED),
    "canceling before": Case(status=DagsterRunStatus.CANCELING),
    "canceled at work": Case("long", signal=signal.SIGTERM, is_canceled_first=True),
    "interrupted at work": Case("long", signal=signal.SIGINT),
    "terminated at work": Case("long", signal=signal.SIGTERM),
    "killed at work": Case("long", signal=signal.SIGKILL),
}


class Project:
    """The project, its instance, and a node that executes its runs."""

    def __init__(self, folder: Path) -> None:
        self.home, self.code = folder / "home", folder / "code"
        self.home.mkdir(parents=True)
        self.code.mkdir()
        (self.home / "dagster.yaml").write_text(
            "telemetry: {enabled: false}\n"
            "secrets: {custom: {module: dagster._core.secrets.env_file, class: EnvFileLoader, config: {}}}\n"
        )
        (self.code / "pipelines.py").write_text(CODE)
        (self.code / "beside.py").write_text("EDITION = ''\ndef double(number): return 2 * number")
        (self.code / ".env").write_text("SECRET='from .env'\n")
        self.flag = folder / "flag"
        self.secrets: dict[str, str] = {}
        self.instance = DagsterInstance.from_config(str(self.home))

    async def play(self, node: Node, case: Case) -> History:
        """Executes one run to its end."""
        run, args = self._create(case)
        self.flag.unlink(missing_ok=True)
        spec = SpecRecord(
            worker_command(sys.executable, case.verb, run.run_id),
            {**self._environment(), "DAGSTER_RUN_JOB_NAME": case.job},
            cwd=str(self.code),
            worker_args=args,
            identity={"location": "shop"},
            secret_names=list(self.secrets),
        )
        key = AttemptKey(run.run_id, 1)
        directory = await node.start(spec, key)
        if case.signal:
            await await_until(self.flag.exists, lambda: directory.stderr.read_text())
            if case.is_canceled_first:
                self.instance.report_run_canceling(run)
            worker = await node.running(key)
            os.kill(worker.pid, case.signal)
        await node.outcome(key)
        return self._history(run, directory)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "DAGSTER_HOME": str(self.home),
            "FLAG": str(self.flag),
            **self.secrets,
        }

    def _create(self, case: Case) -> tuple[DagsterRun, str]:
        job = self._job(case.job, "defs")
        origin = self._job(case.job, case.pointer).get_python_origin()
        run = self.instance.create_run_for_job(
            job.get_definition(), status=case.status, job_code_origin=origin
        )
        ref, run_id = self.instance.get_ref(), case.run_id or run.run_id
        if case.verb == "resume_run":
            return run, serialize_value(ResumeRunArgs(origin, run_id, ref))
        flag = case.flagged or None
        return run, serialize_value(ExecuteRunArgs(origin, run_id, ref, set_exit_code_on_failure=flag))

    def _job(self, name: str, attribute: str) -> ReconstructableJob:
        pointer = FileCodePointer(str(self.code / "pipelines.py"), attribute, str(self.code))
        return ReconstructableRepository(pointer).get_reconstructable_job(name)

    def _history(self, run: DagsterRun, directory: RunDirectory) -> History:
        ended, now = directory.read_exit(), self.instance.get_run_by_id(run.run_id)
        assert ended is not None
        assert now is not None
        blurred = _blurred(run, directory, self.home.parent)
        entries = self.instance.all_logs(run.run_id)
        events = [f"{entry.dagster_event_type} {entry.step_key} {entry.user_message}" for entry in entries]
        # Dagster repeats these on the worker's own output, as far as it gets before the worker ends.
        logs = sorted((self.home / "storage" / run.run_id).glob("compute_logs/*.out"))
        return History(
            ended.code,
            ended.signal,
            now.status.value,
            tuple(blurred(event) for event in events),
            blurred("".join(log.read_text() for log in logs)),
            self.flag.exists(),
        )


def _blurred(run: DagsterRun, directory: RunDirectory, folder: Path) -> Callable[[str], str]:
    def blur(text: str) -> str:
        text = text.replace(run.run_id, "RUN").replace(str(directory.path), "DIRECTORY")
        text = text.replace(str(folder), "FOLDER")
        text = re.sub(r"\(?pid: \d+\)?", "PID", text)
        text = re.sub(r"\b\d+(\.\d+)?(ms|s)\b", "DURATION", text)
        return re.sub(r"\b[0-9a-f]{8,}\b|\b[a-z]{8}\b(?=\.)", "ID", text)

    return blur


def as_text(history: History) -> str:
    """For comparisons whose difference people have to read."""
    return json.dumps({**vars(history), "events": list(history.events)}, indent=1)
