"""A deployment with the proving ground on it, and what the tests do there."""

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from end_to_end.support.drivers import driver_under_test
from harness.deployment import NOTHING, Deployment, open_deployment
from harness.local_cluster import ROOT_TOO, WorkerProcesses
from harness.waiting import wait_until

from runyard.client.errors import RunNotFound
from runyard.v1 import run_pb2

NODE = "alpha"
"""The node of most tests, in the cluster `default`."""

LONG = 120.0
"""Seconds that a run may take to its next step on a very busy machine; one step imports Dagster twice."""

STARTED = dg.DagsterRunStatus.STARTED
SUCCESS = dg.DagsterRunStatus.SUCCESS
FAILURE = dg.DagsterRunStatus.FAILURE
CANCELED = dg.DagsterRunStatus.CANCELED


@dataclass(frozen=True)
class ProvingGround:
    """The folder of the test project; see `project/proving_ground.py` for its files."""

    folder: Path

    def starts(self, run_id: str) -> list[int]:
        """The IDs of all processes that ever started an op of the run."""
        ledger = self.folder / "ledger"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        entries = [line.split() for line in lines]
        return [int(pid) for started, pid in entries if started == run_id]

    def release(self, run_id: str) -> None:
        """Lets a waiting run go on."""
        (self.folder / f"release-{run_id}").touch()

    @contextmanager
    def held_imports(self) -> Iterator[None]:
        """Run workers block in the import of the user's code for as long as this lasts."""
        with self._file("hold-import"):
            yield
        (self.folder / "importing").unlink(missing_ok=True)

    def wait_for_import(self) -> None:
        """Waits until a worker is blocked in the import."""
        wait_until((self.folder / "importing").exists, "no worker has begun to import", timeout=LONG)

    def broken_imports(self) -> Any:
        """Run workers cannot import the user's code for as long as this lasts."""
        return self._file("break-import")

    @contextmanager
    def _file(self, name: str) -> Iterator[None]:
        (self.folder / name).touch()
        try:
            yield
        finally:
            (self.folder / name).unlink()


class Stage:
    """A deployment that runs the proving ground."""

    def __init__(self, deployment: Deployment, ground: ProvingGround) -> None:
        self.deployment = deployment
        self.cluster = deployment.cluster
        self.site = deployment.site
        self.ground = ground

    def launch(self, job: str, **tags: str) -> str:
        """Creates and submits a run; returns its ID.

        Args:
            job: Name of a job of the proving ground.
            **tags: Values of the tags `runyard/<name>`.
        """
        return self.site.submit(self.create(job, **tags))

    def create(self, job: str, **tags: str) -> dg.DagsterRun:
        """Creates a run; see `launch`."""
        return self.site.create_run(job, tags={f"runyard/{name}": value for name, value in tags.items()})

    def launch_busy(self, job: str = "wait", **tags: str) -> str:
        """As `launch`, and returns when the run's op is at work."""
        run_id = self.launch(job, **tags)
        self.wait_until_busy(run_id)
        return run_id

    def wait_until_busy(self, run_id: str, starts: int = 1) -> None:
        """Waits until the run's op has been started that often and Dagster says STARTED."""
        wait_until(
            lambda: len(self.ground.starts(run_id)) >= starts and self.site.status(run_id) == STARTED,
            lambda: self.describe(run_id),
            timeout=LONG,
        )

    def wait_for_status(self, run_id: str, status: dg.DagsterRunStatus, timeout: float = LONG) -> None:
        """Waits until Dagster says so."""
        wait_until(lambda: self.site.status(run_id) == status, lambda: self.describe(run_id), timeout=timeout)

    def wait_for_phase(
        self, run_id: str, phase: run_pb2.Phase.ValueType, timeout: float = LONG
    ) -> run_pb2.Run:
        """Waits until the coordinator says so, and returns the run."""

        def reached() -> run_pb2.Run | None:
            run = self.find(run_id)
            return run if run and run.phase == phase else None

        return wait_until(reached, lambda: self.describe(run_id), timeout=timeout)

    def wait_for_end(self, run_id: str, timeout: float = LONG) -> run_pb2.Outcome:
        """Waits until the worker is provably over, and returns how it ended."""
        return self.wait_for_phase(run_id, run_pb2.PHASE_FINISHED, timeout).outcome

    def find(self, run_id: str) -> run_pb2.Run | None:
        """What the coordinator knows of a run."""
        try:
            return self.cluster.run(run_id)
        except RunNotFound:
            return None

    def terminate(self, run_id: str) -> bool:
        """Terminates a run as Dagster's web server does."""
        return self.site.instance.run_coordinator.cancel_run(run_id)

    def worker(self, run_id: str) -> WorkerProcesses:
        """The processes of a run's latest attempt, once they are there."""
        return self.cluster.worker(self.wait_for_phase(run_id, run_pb2.PHASE_RUNNING))

    def failure(self, run_id: str) -> str:
        """What Dagster shows as the reason of a failed run."""
        failures = self.site.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        assert len(failures) == 1, self.history(run_id)
        return failures[0].message

    def history(self, run_id: str) -> str:
        """The run's event log with all metadata and errors, one event a paragraph."""
        entries = self.site.instance.all_logs(run_id)
        return "\n".join(f"{entry.message} {_details(entry.dagster_event)}" for entry in entries)

    def describe(self, run_id: str) -> str:
        """Everything known of a run, for failed tests."""
        return (
            f"Dagster: {self.site.status(run_id)}\nop starts: {self.ground.starts(run_id)}\n"
            f"Runyard: {self.find(run_id)}\nevents:\n{self.history(run_id)}"
        )


@contextmanager
def open_stage(
    ground_folder: Path,
    settings: Mapping[str, Any],
    launcher: Mapping[str, Any] = NOTHING,
    agent: Mapping[str, Any] = NOTHING,
) -> Iterator[Stage]:
    """A stage with one agent, for a module of tests.

    Args:
        ground_folder: An empty folder; becomes the proving ground.
        settings: Top-level keys of `dagster.yaml` that differ from the quickstart's.
        launcher: Settings of the run launcher beside the address.
        agent: Settings of the agent.
    """
    shutil.copy(Path(__file__).parents[1] / "project" / "proving_ground.py", ground_folder)
    with (
        driver_under_test(ground_folder) as routing,
        open_deployment(
            project=ground_folder,
            module="proving_ground",
            settings=settings,
            launcher=launcher,
            routing=routing,
        ) as deployment,
    ):
        deployment.cluster.start_agent(NODE, "default", settings={**ROOT_TOO, **agent})
        yield Stage(deployment, ProvingGround(ground_folder))


def kill(pid: int) -> None:
    """As the kernel's out-of-memory killer or an operator would."""
    os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process exists that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _details(event: dg.DagsterEvent | None) -> str:
    data = event and event.event_specific_data
    metadata = getattr(data, "metadata", None) or {}
    error = getattr(data, "error", None)
    return " ".join([*(f"{label}={value.value}" for label, value in metadata.items()), str(error or "")])
