"""The run launcher: what Dagster calls to start, watch and stop run workers on Runyard's nodes."""

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Self

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import (
    CheckRunHealthResult,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
)
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value

from runyard.client import Client, RunNotFound, RunyardError
from runyard.common.secrets import masked, remember, secret_names, secret_values
from runyard.launcher import tags
from runyard.launcher.causes import explain_end
from runyard.launcher.config import SCHEMA, Settings, resolve_environment, resolve_settings
from runyard.launcher.debug_info import LOG_BYTES, describe
from runyard.launcher.engine_events import launched, unknown_to_coordinator
from runyard.launcher.errors import InvalidLauncherConfig, NotLaunched, NotTerminated
from runyard.launcher.health import health_of, health_of_unknown
from runyard.launcher.launch_spec import Entry, Execute, Resume, launch_spec
from runyard.launcher.reporter.background import REPORTERS, Deployment
from runyard.launcher.reporter.dagster_writes import write_event
from runyard.launcher.reporter.reporter import Reporter
from runyard.launcher.signing import signed
from runyard.v1 import launch_pb2, run_pb2

logger = logging.getLogger(__name__)

# A node that hangs must not delay what Dagster wants to say about other runs; in seconds.
_LOG_TIMEOUT: Final = 5.0

# A worker wrote that it had begun: one was there.
_BEGUN: Final = frozenset({DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING})


class RunyardRunLauncher(RunLauncher[DagsterInstance], ConfigurableClass):
    """Starts the runs of a Dagster instance on Runyard's nodes.

    Keeps nothing about runs: the web server, the daemon and the command line have one launcher each.
    Making one connects nowhere and reads nothing, for run workers make one too.
    """

    def __init__(self, config: Mapping[str, Any], inst_data: ConfigurableClassData | None = None) -> None:
        """Called by Dagster.

        Args:
            config: As validated against `config_type`.
            inst_data: How Dagster found this class.
        """
        self._config = config
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """How Dagster found this class."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """What `run_launcher.config` in `dagster.yaml` may say."""
        return SCHEMA

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Called by Dagster once it validated the configuration."""
        return cls(config_value, inst_data)

    @cached_property
    def settings(self) -> Settings:
        """The configuration with its `env:` values looked up in this process.

        Raises:
            InvalidLauncherConfig: A variable is not set, or a value makes no sense.
        """
        return resolve_settings(self._config, os.environ)

    # Launching

    def launch_run(self, context: LaunchRunContext) -> None:
        """Gives a run to the coordinator; returns when the coordinator has it on disk.

        Raises:
            RunyardError: It did not take it. Dagster fails the run with the message.
        """
        self._launch(context.dagster_run, Execute())

    @property
    def supports_resume_run(self) -> bool:
        """Yes: run monitoring may resume runs whose worker died."""
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        """Gives the coordinator a run whose worker died, to be taken up by a new one.

        Raises:
            RunyardError: It did not take it, for example because the worker lives. Dagster fails the run.
        """
        number = context.resume_attempt_number
        self._launch(context.dagster_run, Resume(1 if number is None else number))

    def _launch(self, run: DagsterRun, entry: Entry) -> None:
        self._keep_reporter()
        environment = resolve_environment(self.settings.env_vars, os.environ)
        spec = self._signed(launch_spec(run, entry, self._instance.get_ref(), self.settings, environment))
        snapshot = partial(self._snapshot, run.job_snapshot_id) if run.job_snapshot_id else None
        try:
            launch = self._client.launch_run(spec, snapshot=snapshot, timeout=self.settings.launch_timeout)
        except RunyardError as error:
            raise NotLaunched(
                f"Runyard's coordinator at {self._client.address} did not take run {run.run_id}: {error}"
            ) from error
        self._show_launch(run, launch)

    def _signed(self, spec: run_pb2.LaunchSpec) -> run_pb2.LaunchSpec:
        key, lifetime = self.settings.signing_key, self.settings.signature_lifetime
        return spec if key is None else signed(spec, Path(key), time.time(), lifetime)

    def _snapshot(self, snapshot_id: str) -> bytes:
        return serialize_value(self._instance.get_job_snapshot(snapshot_id)).encode()

    def _show_launch(self, run: DagsterRun, launch: run_pb2.Run) -> None:
        """The launch is durable: that people cannot be told of it must not fail the run."""
        try:
            if placed := tags.placed(run.tags, launch.cluster, launch.node):
                self._instance.add_run_tags(run.run_id, placed)
            write_event(self._instance, run, launched(launch))
        except Exception:
            logger.exception("Run %s was launched, but its event log could not be written", run.run_id)

    # Stopping

    def terminate(self, run_id: str) -> bool:
        """Asks the coordinator to end a run's worker. Changes nothing before the coordinator was reached.

        Returns:
            True if the run will end, or has ended, as canceled. False if there is nothing to stop.

        Raises:
            NotTerminated: The coordinator could not be told.
        """
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        self._keep_reporter()
        try:
            known = self._client.get_run(run_id).run
        except RunNotFound:
            return self._terminate_unknown(run)
        except RunyardError as error:
            raise NotTerminated(f"run {run_id} goes on, nothing was changed: {error}") from error
        self._mark_canceling(run)
        self._request_stop(
            run_id, f"run {run_id} is marked as canceling, but its worker was not told to stop"
        )
        if known.phase == run_pb2.PHASE_FINISHED:
            self._mark_canceled(run_id, explain_end(known))
        return True

    def _terminate_unknown(self, run: DagsterRun) -> bool:
        """Stops a run that the coordinator never had: perhaps its launch is still on the way.

        The coordinator remembers the stop, and it wins over the launch. So a run that never began can be
        called canceled; of one that did begin, a worker may be alive where Runyard cannot see it.
        """
        answer = self._request_stop(run.run_id, f"run {run.run_id} goes on, nothing was changed")
        if not answer.HasField("run") and run.status in _BEGUN:
            write_event(self._instance, run, unknown_to_coordinator(self._client.address))
            return False
        self._mark_canceling(run)
        if not answer.HasField("run"):
            self._mark_canceled(run.run_id, "The run was canceled before it reached Runyard.")
        return True

    def _request_stop(self, run_id: str, state_on_failure: str) -> launch_pb2.TerminateRunResponse:
        try:
            return self._client.terminate_run(run_id, reason="Dagster was asked to terminate the run")
        except RunyardError as error:
            raise NotTerminated(f"{state_on_failure}: {error}. Terminate it again") from error

    def _mark_canceling(self, run: DagsterRun) -> None:
        """Before the signal: a worker that is stopped without this mark calls its run failed."""
        if run.status != DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)

    def _mark_canceled(self, run_id: str, message: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run, message)

    # Watching

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: run monitoring may ask for a worker's health."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Tells run monitoring whether the worker of an unfinished run is over for certain.

        Raises:
            RunyardError: The coordinator cannot be asked now. Run monitoring then leaves the run alone.
        """
        self._keep_reporter()
        try:
            return health_of(self._client.get_run(run.run_id).run)
        except RunNotFound:
            return health_of_unknown(run.run_id, self._client.address)

    def get_run_worker_debug_info(
        self, run: DagsterRun, include_container_logs: bool | None = True
    ) -> str | None:
        """Tells all that Runyard knows about the worker, as text."""
        try:
            answer = self._client.get_run(run.run_id)
        except RunyardError as error:
            return f"Runyard: {error}"
        stderr = self._stderr(answer.run) if include_container_logs else ""
        return describe(answer, stderr)

    def _stderr(self, run: run_pb2.Run) -> str:
        """The end of the worker's stderr: as reported with its end, else from its node; no secrets in it."""
        if run.outcome.stderr_tail or not run.node:
            return run.outcome.stderr_tail
        with contextlib.suppress(InvalidLauncherConfig):  # then nothing was launched with it either
            values = resolve_environment(self.settings.env_vars, os.environ).values
            remember(secret_values(values, secret_names(values)))
        pieces = self._client.read_logs(
            run.run_id,
            stream=launch_pb2.LOG_STREAM_STDERR,
            offset=-LOG_BYTES,
            limit=LOG_BYTES,
            attempt=run.attempt,
            timeout=_LOG_TIMEOUT,
        )
        try:
            return masked(b"".join(piece.data for piece in pieces).decode(errors="replace"))
        except RunyardError as error:
            return f"(not readable: {error})"

    # Housekeeping

    def join(self, timeout: int = 30) -> None:
        """Nothing to wait for: workers belong to their nodes."""

    def dispose(self) -> None:
        """Closes what this launcher opened in this process. Workers are not touched."""
        REPORTERS.release(self)
        if "_client" in self.__dict__:
            self._client.close()
            del self.__dict__["_client"]

    @cached_property
    def _client(self) -> Client:
        return self.open_client()

    def open_client(self) -> Client:
        """Gives a client of the coordinator as configured; the caller closes it. Connects nowhere yet.

        Raises:
            RunyardError: The configuration is wrong, or the address is not allowed without encryption.
        """
        settings = self.settings
        return Client(settings.address, timeout=settings.request_timeout, tls=settings.tls)

    def _keep_reporter(self) -> None:
        """Lets this process report ended workers, if no other does. That it cannot must not fail a run."""
        settings = self.settings
        if not settings.reporter or not self._instance.is_persistent:
            return
        open_instance = partial(DagsterInstance.from_ref, self._instance.get_ref())
        try:
            REPORTERS.keep(
                Deployment(settings.address, settings.deployment),
                owner=self,
                make=lambda: Reporter(self.open_client(), open_instance, settings.deployment),
            )
        except Exception:
            logger.exception("This process cannot report ended workers to Dagster")
