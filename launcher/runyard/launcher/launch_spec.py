"""Translates a Dagster run into a launch for the coordinator. No I/O: equal runs give equal launches."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dagster import DagsterRun
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import serialize_value
from google.protobuf.duration_pb2 import Duration

from runyard.common.protobuf_time import to_duration
from runyard.common.references import FromEnvironment, FromFile, Reference
from runyard.launcher.config import Settings, WorkerEnvironment
from runyard.launcher.errors import NotLaunched
from runyard.launcher.tags import without_written
from runyard.v1 import placement_pb2, run_pb2


@dataclass(frozen=True)
class Execute:
    """The first worker of a run."""


@dataclass(frozen=True)
class Resume:
    """A worker that continues where a dead one stopped. `number` counts the resumes of the run from 1."""

    number: int


Entry = Execute | Resume


def launch_spec(
    run: DagsterRun,
    entry: Entry,
    instance_ref: InstanceRef,
    settings: Settings,
    environment: WorkerEnvironment,
) -> run_pb2.LaunchSpec:
    """Translate a run.

    Args:
        run: The run as Dagster's storage has it.
        entry: Execute the run, or resume it.
        instance_ref: Reference to Dagster's storage for the worker.
        settings: The launcher's settings.
        environment: The workers' environment, as `resolve_environment` made it.

    Raises:
        NotLaunched: The run has no code origin.
    """
    origin = run.job_code_origin
    if origin is None:
        raise NotLaunched(
            f"run {run.run_id} has no job_code_origin, so no node could find its code. "
            "Submit it through a workspace: the web server, `dagster job launch`, or instance.submit_run"
        )
    return run_pb2.LaunchSpec(
        run_id=run.run_id,
        resume_number=_resume_number(entry),
        kind=_kind(entry),
        worker_args=_worker_args(run.run_id, origin, entry, instance_ref),
        code_origin=_code_origin(run, origin),
        tags=without_written(run.tags),
        requirements=_requirements(settings),
        policies=_policies(settings),
        environment={**environment.values, "DAGSTER_RUN_JOB_NAME": run.job_name},
        environment_references={name: _message(each) for name, each in environment.references.items()},
        deployment=settings.deployment,
        job_snapshot_id=run.job_snapshot_id or "",
        step_keys=run.step_keys_to_execute or (),
        execution_config_json=_json(_execution_config(run)),
    )


def _message(reference: Reference) -> run_pb2.EnvironmentReference:
    match reference:
        case FromEnvironment(name):
            return run_pb2.EnvironmentReference(env=name)
        case FromFile(path):
            return run_pb2.EnvironmentReference(file=path)


def _resume_number(entry: Entry) -> int:
    match entry:
        case Execute():
            return 0
        case Resume(number):
            return number


def _kind(entry: Entry) -> run_pb2.LaunchKind.ValueType:
    match entry:
        case Execute():
            return run_pb2.LAUNCH_KIND_EXECUTE
        case Resume():
            return run_pb2.LAUNCH_KIND_RESUME


def _worker_args(run_id: str, origin: JobPythonOrigin, entry: Entry, instance_ref: InstanceRef) -> str:
    match entry:
        case Execute():
            return serialize_value(ExecuteRunArgs(origin, run_id, instance_ref))
        case Resume():
            return serialize_value(ResumeRunArgs(origin, run_id, instance_ref))


def _code_origin(run: DagsterRun, origin: JobPythonOrigin) -> run_pb2.CodeOrigin:
    repository = origin.repository_origin
    remote = run.remote_job_origin
    return run_pb2.CodeOrigin(
        location=remote.location_name if remote else "",
        repository=remote.repository_origin.repository_name if remote else "",
        job=run.job_name,
        executable=repository.executable_path,
        working_directory=_working_directory(repository.code_pointer),
        image=repository.container_image or "",
        container_context_json=_json(repository.container_context),
    )


def _working_directory(pointer: Any) -> str:
    """Every code pointer has one, except CustomPointer, which wraps a pointer that does."""
    pointer = getattr(pointer, "reconstructor_pointer", pointer)
    return getattr(pointer, "working_directory", None) or ""


def _execution_config(run: DagsterRun) -> Mapping[str, Any] | None:
    config = run.run_config.get("execution")
    return config if isinstance(config, Mapping) else None


def _json(config: Mapping[str, Any] | None) -> str:
    return json.dumps(config, sort_keys=True) if config else ""


def _requirements(settings: Settings) -> placement_pb2.Requirements:
    """Requirements that the settings give to all runs. The coordinator reads the run's own tags."""
    return placement_pb2.Requirements(
        cluster=settings.cluster or "",
        labels=[f"{key}={value}" for key, value in sorted(settings.labels.items())],
    )


def _policies(settings: Settings) -> run_pb2.Policies:
    """Time limits of all runs. An unset one stays absent; zero is a limit like any other."""
    return run_pb2.Policies(
        max_queue_time=_duration(settings.max_queue),
        start_timeout=_duration(settings.start_timeout),
        grace=_duration(settings.grace),
        stop_after=_duration(settings.stop_after),
    )


def _duration(seconds: float | None) -> Duration | None:
    return None if seconds is None else to_duration(seconds)
