"""Dagster's side of a deployment: an instance, a code server, a daemon and a web server of its own."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from .processes import Child, Processes, free_port, wait_for_text

ASSET_JOB = "__ASSET_JOB"
"""Dagster's name for the job of runs that materialise assets ad hoc."""

LAUNCH_IN_THE_CALLER = {
    "run_coordinator": {
        "module": "dagster._core.run_coordinator.sync_in_memory_run_coordinator",
        "class": "SyncInMemoryRunCoordinator",
    }
}
"""Settings that launch a submitted run at once, without Dagster's queue and daemon."""


class DagsterSite:
    """A Dagster instance on SQLite with one code location, whose code server is shared by all processes."""

    def __init__(
        self, processes: Processes, home: Path, project: Path, module: str, settings: Mapping[str, Any]
    ) -> None:
        """Writes the configuration, and returns when the code server has loaded the project.

        Args:
            processes: Where the processes are started.
            home: Becomes DAGSTER_HOME.
            project: Folder in which the module is found.
            module: Module with the definitions; the code location gets its name.
            settings: Content of `dagster.yaml`.
        """
        self._processes = processes
        self.home = home
        self._project = project
        self.location = module
        self.workspace_file = home / "workspace.yaml"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text(yaml.safe_dump(dict(settings)))
        self._start_code_server(home / "code.sock", module)
        self.instance = dg.DagsterInstance.from_config(str(home))
        self._workspace = WorkspaceProcessContext(
            self.instance, WorkspaceFileTarget([str(self.workspace_file)])
        )

    def _start_code_server(self, socket: Path, module: str) -> None:
        entry = {"host": "localhost", "socket": str(socket), "location_name": module}
        self.workspace_file.write_text(yaml.safe_dump({"load_from": [{"grpc_server": entry}]}))
        server = self._start(
            "code-server",
            *("dagster", "api", "grpc", "--socket", str(socket), "--location-name", module),
            *("--module-name", module, "--working-directory", str(self._project)),
            "--use-python-environment-entry-point",
        )
        wait_for_text(server, "Started Dagster code server")

    def start_daemon(self) -> Child:
        """Starts the daemon, which launches what waits in Dagster's queue."""
        return self._start("daemon", "dagster._daemon", "run", "--workspace", str(self.workspace_file))

    def start_web_server(self) -> str:
        """Starts Dagster's web server, and returns its URL when it serves."""
        port = free_port()
        server = self._start(
            "webserver",
            *("dagster_webserver", "--host", "127.0.0.1", "--port", str(port)),
            *("--workspace", str(self.workspace_file)),
        )
        wait_for_text(server, "Serving dagster-webserver")
        return f"http://127.0.0.1:{port}"

    def start_command(self, *arguments: str) -> Child:
        """Starts `dagster ARGUMENTS` on this instance."""
        return self._start("command", "dagster", *arguments)

    def _start(self, name: str, module: str, *arguments: str) -> Child:
        return self._processes.start(
            f"dagster-{name}",
            *(sys.executable, "-m", module, *arguments),
            environment={"DAGSTER_HOME": str(self.home)},
            directory=self._project,
        )

    def request_context(self) -> WorkspaceRequestContext:
        """The workspace as Dagster's own processes hand it to the run coordinator."""
        return self._workspace.create_request_context()

    def create_run(
        self,
        job: str,
        *,
        run_config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        assets: Sequence[str] = (),
    ) -> dg.DagsterRun:
        """Creates a run, as Dagster's command line does; it is not submitted yet.

        Args:
            job: Name of the job; `ASSET_JOB` for assets.
            run_config: Run config of the job.
            tags: Tags beside those of the job.
            assets: What to materialise, with ASSET_JOB.
        """
        location = self.request_context().get_code_location(self.location)
        repository = next(iter(location.get_repositories().values()))
        remote_job = location.get_job(
            JobSubsetSelector(
                location_name=location.name,
                repository_name=repository.name,
                job_name=job,
                op_selection=None,
                asset_selection=[dg.AssetKey(asset) for asset in assets],
            )
        )
        plan = location.get_execution_plan(remote_job, run_config or {}, None, None, self.instance)
        return self.instance.create_run(
            job_name=job,
            run_id=None,
            run_config=run_config or {},
            status=None,
            tags={**remote_job.tags, **(tags or {})},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=remote_job.job_snapshot,
            parent_job_snapshot=remote_job.parent_job_snapshot,
            asset_selection=frozenset(dg.AssetKey(asset) for asset in assets) or None,
            asset_check_selection=None,
            resolved_op_selection=remote_job.resolved_op_selection,
            op_selection=None,
            remote_job_origin=remote_job.get_remote_origin(),
            job_code_origin=remote_job.get_python_origin(),
            asset_graph=repository.asset_graph,
        )

    def submit(self, run: dg.DagsterRun) -> str:
        """Hands a run to Dagster's run coordinator, and returns its ID."""
        self.instance.submit_run(run.run_id, self.request_context())
        return run.run_id

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        """What Dagster's storage says of a run."""
        run = self.instance.get_run_by_id(run_id)
        if run is None:
            raise LookupError(f"Dagster's storage has no run {run_id}")
        return run.status

    def close(self) -> None:
        """Lets go of the instance; the processes belong to `Processes`."""
        self._workspace.__exit__(None, None, None)
        self.instance.dispose()
