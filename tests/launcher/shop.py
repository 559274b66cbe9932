"""A Dagster deployment for tests: a real instance on SQLite, a code location, a worker played by hand."""

import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from runyard.launcher import RunyardRunLauncher

LOCATION = "shop"
IMAGE = "shop:1.2"
CONTAINER_CONTEXT = {"runyard": {"prefer": "zone=a"}}

CODE = """
import dagster as dg

@dg.op(tags={"runyard/prefer": "disk=ssd"})
def greet():
    return "good morning"

@dg.job(tags={"team": "front desk"})
def open_shop():
    greet()

defs = dg.Definitions(jobs=[open_shop])
"""


def write_home(home: Path, launcher: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Path:
    """Writes the dagster.yaml of an instance whose runs Runyard launches."""
    home.mkdir(parents=True, exist_ok=True)
    run_launcher = {
        "module": "runyard.launcher",
        "class": "RunyardRunLauncher",
        "config": dict(launcher),
    }
    whole = {"run_launcher": run_launcher, "telemetry": {"enabled": False}, **(settings or {})}
    (home / "dagster.yaml").write_text(yaml.safe_dump(whole))
    return home


def make_template(home: Path) -> Path:
    """An instance whose database files exist already: a copy opens in no time."""
    write_home(home, {})
    with DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs()
        instance.all_instigator_state()
    return home


@dataclass
class Shop:
    """The deployment, opened."""

    home: Path
    instance: DagsterInstance
    process_context: WorkspaceProcessContext

    @property
    def launcher(self) -> RunyardRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, RunyardRunLauncher)
        return launcher

    @property
    def workspace(self) -> BaseWorkspaceRequestContext:
        return self.process_context.create_request_context()

    # Runs

    def new_run(
        self,
        tags: Mapping[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
        step_keys: Sequence[str] | None = None,
    ) -> DagsterRun:
        """A run that nobody has launched yet."""
        location = self.workspace.get_code_location(LOCATION)
        repository = next(iter(location.get_repositories().values()))
        job = repository.get_full_job("open_shop")
        plan = location.get_execution_plan(job, run_config or {}, step_keys, None, self.instance)
        return self.instance.create_run(
            job_name=job.name,
            run_id=None,
            run_config=run_config or {},
            status=None,
            tags={**job.tags, **(tags or {})},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=step_keys,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            asset_graph=repository.asset_graph,
        )

    def launch(self, tags: Mapping[str, str] | None = None) -> str:
        """Launches a new run as Dagster does, and returns its ID."""
        run_id = self.new_run(tags).run_id
        self.instance.launch_run(run_id, self.workspace)
        return run_id

    def launch_and_start(self, tags: Mapping[str, str] | None = None) -> str:
        """As `launch`; then the worker writes that the run started."""
        run_id = self.launch(tags)
        self.worker_writes(run_id, DagsterEventType.PIPELINE_START)
        return run_id

    def worker_writes(self, run_id: str, event: DagsterEventType) -> None:
        """Does to the storage what a run worker does."""
        name = self.run(run_id).job_name
        self.instance.report_dagster_event(DagsterEvent(event.value, name), run_id)

    # What tests look at

    def run(self, run_id: str) -> DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def status(self, run_id: str) -> DagsterRunStatus:
        return self.run(run_id).status

    def events(self, run_id: str, kind: DagsterEventType) -> list[DagsterEvent]:
        entries = self.instance.all_logs(run_id, of_type=kind)
        return [entry.dagster_event for entry in entries if entry.dagster_event]

    def engine_events(self, run_id: str) -> list[DagsterEvent]:
        return self.events(run_id, DagsterEventType.ENGINE_EVENT)

    def messages(self, run_id: str) -> list[str]:
        return [event.message or "" for event in self.engine_events(run_id)]

    def metadata(self, run_id: str, message_part: str) -> dict[str, object]:
        """The metadata of the one engine event with that text."""
        (event,) = [event for event in self.engine_events(run_id) if message_part in (event.message or "")]
        data = event.event_specific_data
        assert isinstance(data, EngineEventData)
        return {name: value.value for name, value in data.metadata.items()}

    def monitor_once(self) -> list[str]:
        """One real round of Dagster's run monitoring; gives the messages of its errors."""
        rounds = execute_run_monitoring_iteration(self.process_context, logging.getLogger("monitoring"))
        return [error.message for error in rounds if error is not None]


@contextmanager
def open_shop(
    template: Path, home: Path, launcher: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> Iterator[Shop]:
    """Opens a deployment of its own.

    Args:
        template: As made by `make_template`.
        home: Where its DAGSTER_HOME is to be.
        launcher: Configuration of the run launcher.
        settings: Further settings of dagster.yaml.
    """
    shutil.copytree(template, home)
    write_home(home, launcher, settings)
    code = home / "shop_code.py"
    code.write_text(CODE)
    target = LoadableTargetOrigin(
        executable_path=sys.executable, python_file=str(code), working_directory=str(home)
    )
    origin = InProcessCodeLocationOrigin(
        target, container_image=IMAGE, container_context=CONTAINER_CONTEXT, location_name=LOCATION
    )
    load_target = InProcessWorkspaceLoadTarget(origin)
    with (
        DagsterInstance.from_config(str(home)) as instance,
        WorkspaceProcessContext(instance, load_target) as process_context,
    ):
        yield Shop(home, instance, process_context)
