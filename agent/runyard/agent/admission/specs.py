"""Conversion of a launch to the record from which its worker starts."""

import os
from collections.abc import Mapping
from dataclasses import replace

from runyard.agent.admission.errors import UnusableLaunch
from runyard.agent.admission.references import Lookup, UnresolvedReference
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.docker import DockerSettings
from runyard.agent.core.model import LaunchIdentity
from runyard.agent.drivers.docker.plan.plan import (
    DRIVER_NAME,
    UnusablePlan,
    container_command,
    container_environment,
    plan_container,
)
from runyard.agent.drivers.process.driver import worker_command
from runyard.agent.spec_record.environment import ResolvedEnvironment
from runyard.agent.spec_record.identities import identity_record
from runyard.agent.spec_record.redaction import redaction_fingerprints
from runyard.agent.supervisor.records import SpecRecord
from runyard.common.defaults import DRIVER, GRACE_SECONDS
from runyard.common.protobuf_time import to_seconds
from runyard.common.secrets import names_of_urls_with_passwords, remember, secret_values
from runyard.v1 import run_pb2

_VERBS = {
    run_pb2.LAUNCH_KIND_EXECUTE: "execute_run",
    run_pb2.LAUNCH_KIND_RESUME: "resume_run",
}


def build_spec_record(
    settings: AgentSettings,
    identity: LaunchIdentity,
    spec: run_pb2.LaunchSpec,
    own_environment: Mapping[str, str] = os.environ,
) -> SpecRecord:
    """Build the record of a launch for its run directory.

    The environment consists of the inherited variables, those of the settings and those of the launch; later
    ones override earlier ones. References to values on this node are resolved now, which blocks.

    Raises:
        UnusableLaunch: The launch requires something that this agent does not know, have or allow.
    """
    verb = _VERBS.get(spec.kind)
    if verb is None:
        raise UnusableLaunch(f"launch kind {spec.kind} is not known to this agent; upgrade it")
    policies = spec.policies
    common = SpecRecord(
        argv=[],
        env={},
        grace_seconds=to_seconds(policies.grace) if policies.HasField("grace") else GRACE_SECONDS,
        worker_args=spec.worker_args,
        identity=identity_record(identity),
        driver=spec.requirements.driver or DRIVER,
        stop_after=to_seconds(policies.stop_after) if policies.HasField("stop_after") else None,
    )
    given = _given_environment(settings, spec, own_environment)
    if common.driver == DRIVER_NAME and settings.docker is not None:
        record = _in_container(common, settings.docker, given, spec, verb, own_environment)
    else:
        record = _as_process(common, settings, given, spec, verb, own_environment)
    return _with_fingerprints(record, given)


def _given_environment(
    settings: AgentSettings, spec: run_pb2.LaunchSpec, own_environment: Mapping[str, str]
) -> ResolvedEnvironment:
    try:
        return Lookup(settings.node_id, settings.references, own_environment).resolve(
            settings.environment, spec
        )
    except UnresolvedReference as error:
        raise UnusableLaunch(str(error)) from None


def _with_fingerprints(record: SpecRecord, given: ResolvedEnvironment) -> SpecRecord:
    """Return the record with fingerprints of its secrets. From now on the log masks them."""
    names = given.secrets_among(record.env)
    values = secret_values(record.env, names)
    remember(values)
    holders = sorted({*names, *names_of_urls_with_passwords(record.env)})
    return replace(record, secret_names=holders, fingerprints=redaction_fingerprints(values))


def _as_process(
    common: SpecRecord,
    settings: AgentSettings,
    given: ResolvedEnvironment,
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
        env={**passed_on, **given.by_owner, **given.by_launch},
        cwd=origin.working_directory or settings.working_directory,
    )


def _in_container(
    common: SpecRecord,
    docker: DockerSettings,
    given: ResolvedEnvironment,
    spec: run_pb2.LaunchSpec,
    verb: str,
    own_environment: Mapping[str, str],
) -> SpecRecord:
    # Paths of the code location have no meaning in a container: as in Dagster, the image sets the directory.
    try:
        return replace(
            common,
            argv=container_command(docker, spec, verb),
            env=container_environment(docker, given, spec, own_environment),
            container=plan_container(docker, spec).as_record(),
        )
    except UnusablePlan as error:
        raise UnusableLaunch(str(error)) from error
