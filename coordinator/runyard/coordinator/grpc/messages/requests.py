"""Validation of requests, and their conversion to types of the core."""

import hashlib
import uuid
from collections.abc import Mapping

from runyard.common.defaults import GRACE_SECONDS
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.model import Launch
from runyard.coordinator.core.requirements.requirements import (
    CompiledRequirements,
    RequirementLayer,
    TimeLimits,
)
from runyard.coordinator.grpc.errors import TooLarge
from runyard.coordinator.grpc.messages.layers import layers_of
from runyard.v1 import run_pb2

PRIORITY = "dagster/priority"

HIGHEST_PRIORITY = 1_000_000_000
"""Priorities are clamped to this value and its negative."""

MAX_SPEC = 4 * 1024 * 1024
"""Maximum bytes of a launch spec; the agent gets it in one message."""


def check_run_id(text: str, field: str = "run_id") -> str:
    """Return a run ID after checking it.

    Raises:
        InvalidField: It is empty or not a UUID.
    """
    if not text:
        raise InvalidField(field, "is empty; give Dagster's run ID")
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        canonical = ""
    if canonical != text.lower():
        raise InvalidField(field, f"{text[:80]!r} is not a run ID; Dagster's run IDs are UUIDs")
    return text


def check_spec(spec: run_pb2.LaunchSpec) -> None:
    """Check a spec except for its requirements.

    Raises:
        InvalidField: A field is missing or malformed; the message names it.
        TooLarge: The spec exceeds `MAX_SPEC`.
    """
    check_run_id(spec.run_id, "spec.run_id")
    if spec.ByteSize() > MAX_SPEC:
        raise TooLarge(
            f"the launch spec has {spec.ByteSize()} bytes, more than the {MAX_SPEC} that are allowed"
        )
    if spec.kind not in (run_pb2.LAUNCH_KIND_EXECUTE, run_pb2.LAUNCH_KIND_RESUME):
        raise InvalidField("spec.kind", "is not set; give EXECUTE or RESUME")
    if (spec.kind == run_pb2.LAUNCH_KIND_RESUME) != (spec.resume_number > 0):
        raise InvalidField("spec.resume_number", "must be 0 for EXECUTE and at least 1 for RESUME")
    if not spec.worker_args:
        raise InvalidField(
            "spec.worker_args", "is empty; give the serialized ExecuteRunArgs or ResumeRunArgs"
        )
    if not spec.deployment:
        raise InvalidField("spec.deployment", "is empty; name the Dagster deployment that launches")
    _check_environment(spec)


def launch_of(spec: run_pb2.LaunchSpec, ops: RequirementLayer | None, launched_by: str = "") -> Launch:
    """Return the launch of a spec, before the routing rules are applied.

    Args:
        spec: A spec that `check_spec` accepted.
        ops: Requirement layer of its ops.
        launched_by: Identity of the client; empty if unknown.

    Raises:
        InvalidField: A requirement is invalid; the message names the tag or the field.
    """
    return Launch(
        run_id=spec.run_id,
        resume_number=spec.resume_number,
        deployment=spec.deployment,
        job=spec.code_origin.job,
        location=spec.code_origin.location,
        requirements=CompiledRequirements(),
        time_limits=TimeLimits(GRACE_SECONDS),
        digest=_digest(spec),
        spec=spec,
        repository=spec.code_origin.repository,
        layers=layers_of(spec, ops),
        priority=priority_of(spec.tags),
        launched_by=launched_by,
    )


def _digest(spec: run_pb2.LaunchSpec) -> str:
    """Return the digest that identifies a repeated launch. It leaves out the signature, which differs."""
    content = run_pb2.LaunchSpec()
    content.CopyFrom(spec)
    content.ClearField("signed")
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()


def priority_of(tags: Mapping[str, str]) -> int:
    """Return the priority in Dagster's own tag; 0 if it is missing or not a number, as in Dagster's queue."""
    try:
        priority = int(tags.get(PRIORITY, "0"))
    except ValueError:
        return 0
    return max(-HIGHEST_PRIORITY, min(priority, HIGHEST_PRIORITY))


def _check_environment(spec: run_pb2.LaunchSpec) -> None:
    for name, value in spec.environment.items():
        if not name or "=" in name or "\0" in name + value:
            # The part after an equals sign may be a value.
            shown = name.partition("=")[0]
            raise InvalidField("spec.environment", f"{shown!r} is not a valid variable name")
    for name in spec.environment_references:
        if not name or "=" in name or "\0" in name:
            shown = name.partition("=")[0]
            raise InvalidField("spec.environment_references", f"{shown!r} is not a valid variable name")
