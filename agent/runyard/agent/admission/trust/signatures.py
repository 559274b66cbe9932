"""Verification of signed launches. Pure: the time and the keys are arguments.

Everything in a launch is taken from the signed statement, except the fields that the coordinator decides.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from runyard.agent.core.model import AttemptKey
from runyard.common.protobuf_time import to_seconds
from runyard.common.security.signing import PublicKey
from runyard.v1 import run_pb2

COORDINATORS: Final = ("requirements", "policies")
"""Fields that the coordinator decides, even in a signed launch."""

CLOCK_SKEW: Final = 60.0
"""Largest accepted difference between the clocks of launcher and node, in seconds."""


@dataclass(frozen=True)
class Genuine:
    """The launch has a valid signature of a trusted launcher."""

    spec: run_pb2.LaunchSpec
    """The signed launch, with the coordinator's decisions."""
    unsigned_choices: frozenset[str]
    """Those of `driver` and `image` that no signed part of the launch requires."""


@dataclass(frozen=True)
class Doubtful:
    """The launch has no valid signature; `reason` names the cause and the remedy."""

    reason: str


def examine(
    key: AttemptKey, sent: run_pb2.LaunchSpec, keys: Mapping[str, PublicKey], now: float
) -> Genuine | Doubtful:
    """Verify the signature of a launch.

    Args:
        key: The attempt that it was sent for.
        sent: The launch as the coordinator sent it.
        keys: Keys that the owner of this node trusts, by ID.
        now: Unix time in seconds.
    """
    if not sent.HasField("signed"):
        return Doubtful("it is not signed; give its launcher a signing_key")
    signed = sent.signed
    trusted = keys.get(signed.key_id)
    if trusted is None:
        known = ", ".join(keys) or "none"
        return Doubtful(f"it is signed with the key {signed.key_id[:64]!r}; signing_keys here has {known}")
    if not trusted.has_signed(signed.payload, signed.signature):
        return Doubtful("its signature does not match: the launch was altered")
    statement = run_pb2.LaunchStatement()
    try:
        statement.ParseFromString(signed.payload)
    except DecodeError:
        return Doubtful("the signed payload is not a statement of a launch")
    reason = (
        _not_understood(statement) or _out_of_time(statement, now) or _another_launch(key, sent, statement)
    )
    return Doubtful(reason) if reason else _genuine(sent, statement.spec)


def _genuine(sent: run_pb2.LaunchSpec, signed: run_pb2.LaunchSpec) -> Genuine:
    spec = run_pb2.LaunchSpec()
    spec.CopyFrom(signed)
    spec.requirements.CopyFrom(sent.requirements)
    spec.policies.CopyFrom(sent.policies)
    return Genuine(spec, frozenset(_unsigned_choices(sent, signed)))


def _not_understood(statement: run_pb2.LaunchStatement) -> str:
    if field := next(unknown_fields(statement), None):
        return f"what was signed has {field}, which this agent does not know; upgrade it"
    if statement.spec.HasField("signed"):
        return "what was signed has a signature inside"
    return ""


def unknown_fields(message: Message, path: str = "") -> Iterator[str]:
    """Yield every unknown field, at any depth, as `unknown field 7 of spec.code_origin`."""
    where = f" of {path}" if path else ""
    unknown = UnknownFieldSet(message)
    for index in range(len(unknown)):
        yield f"unknown field {unknown[index].field_number}{where}"
    for field, value in message.ListFields():
        for part in _messages_in(value):
            yield from unknown_fields(part, f"{path}.{field.name}".lstrip("."))


def _messages_in(value: Any) -> Iterator[Message]:
    if isinstance(value, Message):
        yield value
    elif isinstance(value, Mapping):
        yield from (part for part in value.values() if isinstance(part, Message))
    elif not isinstance(value, str | bytes | int | float):
        yield from (part for part in value if isinstance(part, Message))


def _out_of_time(statement: run_pb2.LaunchStatement, now: float) -> str:
    if not (statement.HasField("signed_at") and statement.HasField("expires_at")):
        return "the signed statement has no validity period"
    signed_at = to_seconds(statement.signed_at)
    expires_at = to_seconds(statement.expires_at)
    if now >= expires_at + CLOCK_SKEW:
        late = now - expires_at
        return f"its signature expired {late:.0f} s ago; launch it again, or raise signature_lifetime_seconds"
    if signed_at > now + CLOCK_SKEW:
        return f"it was signed {signed_at - now:.0f} s in the future; set the clocks right"
    return ""


def _another_launch(key: AttemptKey, sent: run_pb2.LaunchSpec, statement: run_pb2.LaunchStatement) -> str:
    signed = statement.spec
    if key.run_id != signed.run_id:
        return f"it was signed for another run, {signed.run_id[:64]}"
    if altered := [name for name in _vouched_fields() if getattr(sent, name) != getattr(signed, name)]:
        return f"it is not what was signed: {', '.join(altered)} altered on the way"
    return ""


def _vouched_fields() -> list[str]:
    names = [field.name for field in run_pb2.LaunchSpec.DESCRIPTOR.fields]
    return [name for name in names if name not in (*COORDINATORS, "signed")]


def _unsigned_choices(sent: run_pb2.LaunchSpec, signed: run_pb2.LaunchSpec) -> Iterator[str]:
    driver, image = sent.requirements.driver, sent.requirements.image
    drivers = _asked_for("driver", signed)
    if driver not in drivers and (drivers or driver not in ("", "process")):
        yield "driver"
    if image and image not in {*_asked_for("image", signed), signed.code_origin.image}:
        yield "image"


def _asked_for(name: str, signed: run_pb2.LaunchSpec) -> set[str]:
    """Return the values in the signed layers of the requirements, which do not include op tags."""
    values = [
        getattr(signed.requirements, name),
        signed.tags.get(f"runyard/{name}", ""),
        _object(signed.tags.get("runyard/config", "")).get(name),
        _object(_object(signed.code_origin.container_context_json).get("runyard")).get(name),
    ]
    return {value for value in values if isinstance(value, str) and value}


def _object(written: object) -> Mapping[str, Any]:
    """Return a JSON object, parsed if it is a text; empty for anything else."""
    try:
        value = json.loads(written) if isinstance(written, str) and written else written
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, Mapping) else {}
