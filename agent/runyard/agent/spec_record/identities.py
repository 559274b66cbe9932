"""What of a launch is kept beside the attempt, as its run directory has it."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from runyard.agent.core.model import LaunchIdentity
from runyard.v1 import placement_pb2


def identity_record(identity: LaunchIdentity) -> dict[str, Any]:
    """For `SpecRecord.identity`: texts and numbers by name."""
    return {
        "resume_number": identity.resume_number,
        "deployment": identity.deployment,
        "job": identity.job,
        "location": identity.location,
        "requirements": json_format.MessageToDict(identity.requirements, preserving_proto_field_name=True),
    }


def recorded_identity(values: Mapping[str, Any]) -> LaunchIdentity:
    """From `SpecRecord.identity`. What an older agent did not write, or a newer one wrote, is left out."""
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
