"""Identity of a launch, and its form in the run directory."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from runyard.agent.core.model import LaunchIdentity
from runyard.v1 import placement_pb2, run_pb2


def identity_record(identity: LaunchIdentity) -> dict[str, Any]:
    """Convert an identity to `SpecRecord.identity`: texts and numbers by name."""
    return {
        "resume_number": identity.resume_number,
        "deployment": identity.deployment,
        "job": identity.job,
        "location": identity.location,
        "requirements": json_format.MessageToDict(identity.requirements, preserving_proto_field_name=True),
    }


def recorded_identity(values: Mapping[str, Any]) -> LaunchIdentity:
    """Convert `SpecRecord.identity` to an identity. Unknown fields of a newer agent are ignored."""
    requirements = placement_pb2.Requirements()
    try:
        json_format.ParseDict(values.get("requirements", {}), requirements, ignore_unknown_fields=True)
    except json_format.ParseError:
        requirements.Clear()
    return LaunchIdentity(
        resume_number=int(values.get("resume_number", 0)),
        deployment=str(values.get("deployment", "")),
        job=str(values.get("job", "")),
        location=str(values.get("location", "")),
        requirements=requirements,
    )


def identity_of(spec: run_pb2.LaunchSpec) -> LaunchIdentity:
    """Return the identity of a launch."""
    requirements = placement_pb2.Requirements()
    requirements.CopyFrom(spec.requirements)  # a part of a message would keep the whole of it in memory
    return LaunchIdentity(
        resume_number=spec.resume_number,
        deployment=spec.deployment,
        job=spec.code_origin.job,
        location=spec.code_origin.location,
        requirements=requirements,
    )
