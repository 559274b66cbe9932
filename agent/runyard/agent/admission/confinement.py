"""Limits, user and scratch directory of a worker process."""

from dataclasses import replace
from pathlib import Path

from runyard.agent.admission.errors import UnusableLaunch
from runyard.agent.config.isolation import IsolationSettings
from runyard.agent.core.model import AttemptKey
from runyard.agent.node.isolation_backends import IsolationBackend
from runyard.agent.supervisor.limits.plan import BY_THE_KERNEL
from runyard.agent.supervisor.privileges import UnknownUser, find_user
from runyard.agent.supervisor.records import SpecRecord
from runyard.common.defaults import DEFAULT_ISOLATION, ISOLATION_MODES
from runyard.v1 import run_pb2


def confined(
    record: SpecRecord,
    key: AttemptKey,
    spec: run_pb2.LaunchSpec,
    settings: IsolationSettings,
    backend: IsolationBackend,
) -> SpecRecord:
    """Return the record with the limits, user and scratch directory of its worker process.

    Args:
        record: The record without them.
        key: The attempt.
        spec: Its launch.
        settings: Of the agent.
        backend: Mechanism that enforces limits on this machine.

    Raises:
        UnusableLaunch: This machine cannot provide what the launch requires.
    """
    scratch = settings.scratch_directory
    return replace(
        record,
        limits=_limits(key, spec, backend),
        run_as=_user(settings, spec.code_origin.location),
        scratch="" if scratch is None else str(scratch / f"{key.run_id}-{key.attempt}"),
        no_new_privs=settings.no_new_privs,
        core_dumps=settings.core_dumps,
    )


def _limits(key: AttemptKey, spec: run_pb2.LaunchSpec, backend: IsolationBackend) -> dict[str, object]:
    mode = spec.requirements.isolation or DEFAULT_ISOLATION
    if mode not in ISOLATION_MODES:
        raise UnusableLaunch(
            f"isolation {mode!r} is not known to this agent; write {', '.join(ISOLATION_MODES)}"
        )
    if mode == "require" and backend.name not in BY_THE_KERNEL:
        raise UnusableLaunch(
            "isolation is required, and this node has no control groups for runs; see docs/isolation.md"
        )
    asked = spec.requirements.resources
    memory, cpu = asked.get("memory", 0), asked.get("cpu", 0)
    if mode == "none" or not (memory or cpu):
        return {}
    return backend.plan(key, memory, cpu, mode == "require").as_record()


def _user(settings: IsolationSettings, location: str) -> str:
    name = settings.user_of(location)
    try:
        if name:
            find_user(name)
    except UnknownUser as error:
        raise UnusableLaunch(str(error)) from error
    return name


def make_scratch_home(directory: Path | None) -> None:
    """Make the parent of scratch directories. Other users can traverse it, but not list it.

    Raises:
        OSError: It cannot be made.
    """
    if directory is not None:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
