"""From a launch to what the run directory needs to start its worker."""

import os
from collections.abc import Mapping
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from runyard.agent.config import AgentSettings
from runyard.agent.core.model import LaunchIdentity
from runyard.agent.drivers.docker.plan import (
    DRIVER_NAME,
    UnusablePlan,
    container_command,
    container_environment,
    plan_container,
)
from runyard.agent.drivers.docker.settings import DockerSettings
from runyard.agent.drivers.process import worker_command
from runyard.agent.identities import identity_record
from runyard.agent.records import SpecRecord
from runyard.v1 import run_pb2

DEFAULT_GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL if the launch does not say; the coordinator counts with the same."""

_VERBS = {
    run_pb2.LAUNCH_KIND_EXECUTE: "execute_run",
    run_pb2.LAUNCH_KIND_RESUME: "resume_run",
}


class UnusableLaunch(Exception):
    """This agent cannot make a worker of the launch; the message says why."""


def spec_record(
    settings: AgentSettings,
    identity: LaunchIdentity,
    spec: run_pb2.LaunchSpec,
    own_environment: Mapping[str, str] = os.environ,
) -> SpecRecord:
    """What the run directory of a launch holds.

    The environment is put together from what the agent passes on, its settings, and the launch; later wins.

    Raises:
        UnusableLaunch: The launch asks for something that this agent does not understand.
    """
    verb = _VERBS.get(spec.kind)
    if verb is None:
        raise UnusableLaunch(f"launch kind {spec.kind} is not known to this agent; upgrade it")
    policies = spec.policies
    common = SpecRecord(
        argv=[],
        env={},
        grace_seconds=_seconds(policies.grace) if policies.HasField("grace") else DEFAULT_GRACE,
        worker_args=spec.worker_args,
        identity=identity_record(identity),
        driver=spec.requirements.driver or "process",
        stop_after=_seconds(policies.stop_after) if policies.HasField("stop_after") else None,
    )
    if common.driver == DRIVER_NAME and settings.docker is not None:
        return _in_container(common, settings.docker, settings.environment, spec, verb, own_environment)
    return _as_process(common, settings, spec, verb, own_environment)


def _as_process(
    common: SpecRecord,
    settings: AgentSettings,
    spec: run_pb2.LaunchSpec,
    verb: str,
    own_environment: Mapping[str, str],
) -> SpecRecord:
    origin = spec.code_origin
    python = settings.interpreters.get(origin.location) or origin.executable or settings.python
    passed_on = {
        name: own_environment[name] for name in settings.inherit_environment if name in own_environment
    }
    return replace(
        common,
        argv=worker_command(python, verb, spec.run_id),
        env={**passed_on, **settings.environment, **spec.environment},
        cwd=origin.working_directory or settings.working_directory,
    )


def _in_container(
    common: SpecRecord,
    docker: DockerSettings,
    environment: Mapping[str, str],
    spec: run_pb2.LaunchSpec,
    verb: str,
    own_environment: Mapping[str, str],
) -> SpecRecord:
    # Paths of the code location mean nothing here: like Dagster, the image says where the worker starts.
    try:
        return replace(
            common,
            argv=container_command(docker, spec, verb),
            env=container_environment(docker, environment, spec, own_environment),
            container=plan_container(docker, spec).as_record(),
        )
    except UnusablePlan as error:
        raise UnusableLaunch(str(error)) from error


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
