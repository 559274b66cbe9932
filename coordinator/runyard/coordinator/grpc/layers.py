"""The layers of a launch: what its deployment, its code location, its ops and its own tags ask for."""

import json
from collections.abc import Mapping
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from runyard.common.defaults import CONTEXT_KEY, LONGEST_SECONDS
from runyard.coordinator.core.conversions import wants_of
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.resolve_launch import DEPLOYMENT
from runyard.coordinator.core.requirements.context import wants_in
from runyard.coordinator.core.requirements.requirements import NO_WANTS, Layer, StopAfter, Wants
from runyard.coordinator.core.requirements.tags import wants_of_config, wants_of_tags
from runyard.v1 import run_pb2

RUN_TAGS = "run tags"
"""Source of the highest layer."""

LARGEST_ASK = 16_384
"""Bytes of what a deployment asks for all its runs, and characters of what a code location does.

To compare long lists of labels takes the square of their length, and the event loop waits.
"""


def layers_of(spec: run_pb2.LaunchSpec, ops: Layer | None) -> tuple[Layer, ...]:
    """What a launch says by itself, from the lowest layer; the deployment's is always there.

    Args:
        spec: The launch.
        ops: What the tags of its ops come to.

    Raises:
        InvalidField: A layer says something that makes no sense; the message names the tag or the field.
    """
    location = f"code location {spec.code_origin.location}"
    said = (
        Layer(location, _wants_of_location(spec.code_origin.container_context_json, location)),
        *((ops,) if ops else ()),
        Layer(RUN_TAGS, wants_of_tags(spec.tags, "the run")),
    )
    return (Layer(DEPLOYMENT, _wants_of_deployment(spec)), *(each for each in said if each.wants != NO_WANTS))


def _wants_of_deployment(spec: run_pb2.LaunchSpec) -> Wants:
    size = spec.requirements.ByteSize()
    if size > LARGEST_ASK:
        raise InvalidField("spec.requirements", f"has {size} bytes, more than the {LARGEST_ASK} allowed")
    stop_after = _seconds(spec.policies, "stop_after")
    return replace(
        wants_of(spec.requirements, "spec.requirements"),
        grace=_seconds(spec.policies, "grace"),
        max_queue_time=_seconds(spec.policies, "max_queue_time"),
        start_timeout=_seconds(spec.policies, "start_timeout"),
        on_disconnect=None if stop_after is None else StopAfter(stop_after),
    )


def _seconds(asked: run_pb2.Policies, field: str) -> float | None:
    if not asked.HasField(field):  # type: ignore[arg-type]
        return None
    given: Duration = getattr(asked, field)
    value = given.ToNanoseconds() / 1e9
    if value < 0:
        raise InvalidField(f"spec.policies.{field}", f"is {value:g} s; it cannot be negative")
    if value > LONGEST_SECONDS:
        raise InvalidField(f"spec.policies.{field}", f"is {value:g} s; give {LONGEST_SECONDS:g} at most")
    return value


def _wants_of_location(context_json: str, location: str) -> Wants:
    try:
        context = json.loads(context_json) if context_json else {}
    except (ValueError, RecursionError) as error:
        raise InvalidField("spec.code_origin.container_context_json", f"is not JSON ({error})") from None
    if not isinstance(context, Mapping):
        raise InvalidField("spec.code_origin.container_context_json", "is no JSON object")
    ours = context.get(CONTEXT_KEY, {})
    where = f"container_context.{CONTEXT_KEY} of {location}"
    if not isinstance(ours, Mapping):
        raise InvalidField(where, 'is no dictionary; write for example {"labels": {"zone": "a"}}')
    if ours and _size(ours) > LARGEST_ASK:
        raise InvalidField(where, f"has more than {LARGEST_ASK} characters")
    try:
        wants = wants_in(ours)
    except ValueError as error:
        raise InvalidField(where, str(error)) from None
    return wants_of_config(wants, where)


def _size(config: Mapping[str, object]) -> int:
    try:
        return len(json.dumps(config))
    except RecursionError:  # it was read from less depth
        return LARGEST_ASK + 1
