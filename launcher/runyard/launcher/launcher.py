"""The run launcher, called by Dagster to start, watch and stop run workers on Runyard's nodes."""

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

# Seconds; a node that hangs must not delay Dagster's work on other runs.
_LOG_TIMEOUT: Final = 5.0

# Statuses that a worker wrote: one existed.
_BEGUN: Final = frozenset({DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING})


class RunyardRunLauncher(RunLauncher[DagsterInstance], ConfigurableClass):
    """Starts the runs of a Dagster instance on Runyard's nodes.

    Stateless: the web server, the daemon and the command line have one launcher each. Creating one connects
    nowhere and reads nothing, because run workers create one too.
    """

    def __init__(self, config: Mapping[str, Any], inst_data: ConfigurableClassData | None = None) -> None:
        """Called by Dagster.

        Args:
            config: As validated against `config_type`.
            inst_data: Reference to this class, for Dagster.
        """
        self._config = config
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Reference to this class, for Dagster."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Schema of `run_launcher.config` in `dagster.yaml`."""
        return SCHEMA

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Called by Dagster with the validated configuration."""
        return cls(config_value, inst_data)

    @cached_property
    def settings(self) -> Settings:
        """The configuration with its `env:` values looked up in this process.

        Raises:
            InvalidLauncherConfig: A variable is not set, or a value is invalid.
        """
        return resolve_settings(self._config, os.environ)

    # Launching

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand a run to the coordinator; returns when the coordinator has it on disk.

        Raises:
            RunyardError: The coordinator did not accept it. Dagster fails the run with the message.
        """
        self._launch(context.dagster_run, Execute())

    @property
    def supports_resume_run(self) -> bool:
        """True: run monitoring may resume runs whose worker died."""
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        """Hand over a run whose worker died, to be continued by a new one.

        Raises:
            RunyardError: The coordinator did not accept it, for example because the worker is alive. Dagster
                fails the run.
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
                f"Runyard's coordinator at {self._client.address} did not accept run {run.run_id}: {error}"
            ) from error
        self._show_launch(run, launch)

    def _signed(self, spec: run_pb2.LaunchSpec) -> run_pb2.LaunchSpec:
        key, lifetime = self.settings.signing_key, self.settings.signature_lifetime
        return spec if key is None else signed(spec, Path(key), time.time(), lifetime)

    def _snapshot(self, snapshot_id: str) -> bytes:
        return serialize_value(self._instance.get_job_snapshot(snapshot_id)).encode()

    def _show_launch(self, run: DagsterRun, launch: run_pb2.Run) -> None:
        """Log the launch. It is durable already, so a failure to log it must not fail the run."""
        try:
            if placed := tags.placed(run.tags, launch.cluster, launch.node):
                self._instance.add_run_tags(run.run_id, placed)
            write_event(self._instance, run, launched(launch))
        except Exception:
            logger.exception("Run %s was launched, but its event log could not be written", run.run_id)

    # Stopping

    def terminate(self, run_id: str) -> bool:
        """Ask the coordinator to stop a run's worker. Nothing changes before the coordinator is reached.

        Returns:
            True if the run will end, or has ended, as canceled. False if there is nothing to stop.

        Raises:
            NotTerminated: The coordinator could not be reached.
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
            raise NotTerminated(f"run {run_id} continues, nothing was changed: {error}") from error
        self._mark_canceling(run)
        self._request_stop(
            run_id, f"run {run_id} is marked as canceling, but its worker was not asked to stop"
        )
        if known.phase == run_pb2.PHASE_FINISHED:
            self._mark_canceled(run_id, explain_end(known))
        return True

    def _terminate_unknown(self, run: DagsterRun) -> bool:
        """Stop a run that the coordinator does not know: its launch may still be on the way.

        The coordinator remembers the stop, which overrides a later launch. So a run that never started can be
        marked canceled. If it did start, a worker may be alive where Runyard cannot see it.
        """
        answer = self._request_stop(run.run_id, f"run {run.run_id} continues, nothing was changed")
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
        """Called before the signal: a worker that is stopped without this mark reports its run as failed."""
        if run.status != DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)

    def _mark_canceled(self, run_id: str, message: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run, message)

    # Watching

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: run monitoring may ask for a worker's health."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Report to run monitoring whether the worker of an unfinished run is proven to be over.

        Raises:
            RunyardError: The coordinator cannot be reached. Run monitoring then leaves the run alone.
        """
        self._keep_reporter()
        try:
            return health_of(self._client.get_run(run.run_id).run)
        except RunNotFound:
            return health_of_unknown(run.run_id, self._client.address)

    def get_run_worker_debug_info(
        self, run: DagsterRun, include_container_logs: bool | None = True
    ) -> str | None:
        """Describe everything that Runyard knows about the worker, as text."""
        try:
            answer = self._client.get_run(run.run_id)
        except RunyardError as error:
            return f"Runyard: {error}"
        stderr = self._stderr(answer.run) if include_container_logs else ""
        return describe(answer, stderr)

    def _stderr(self, run: run_pb2.Run) -> str:
        """Tail of the worker's stderr, from the outcome or else from the node, with secrets masked."""
        if run.outcome.stderr_tail or not run.node:
            return run.outcome.stderr_tail
        with contextlib.suppress(InvalidLauncherConfig):  # nothing was launched with it either
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
        """Return at once: workers belong to their nodes."""

    def dispose(self) -> None:
        """Close the connections and threads of this launcher. Workers are not affected."""
        REPORTERS.release(self)
        if "_client" in self.__dict__:
            self._client.close()
            del self.__dict__["_client"]

    @cached_property
    def _client(self) -> Client:
        return self.open_client()

    def open_client(self) -> Client:
        """Create a client of the coordinator as configured; the caller closes it. Nothing is connected yet.

        Raises:
            RunyardError: The configuration is wrong, or the address is not allowed without encryption.
        """
        settings = self.settings
        return Client(settings.address, timeout=settings.request_timeout, tls=settings.tls)

    def _keep_reporter(self) -> None:
        """Start the reporter of this process. A failure to do so must not fail a run."""
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
            logger.exception("This process cannot report the outcomes of workers to Dagster")
