"""Layers of a launch: the requirements of its deployment, code location, ops and tags."""

import json
from collections.abc import Mapping
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from runyard.common.defaults import CONTEXT_KEY, LONGEST_SECONDS
from runyard.common.protobuf_time import to_seconds
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.context import requirements_in
from runyard.coordinator.core.requirements.requirements import RequirementLayer, StopAfter
from runyard.coordinator.core.requirements.tags import layer_from_config, layer_from_tags
from runyard.coordinator.core.resolve_launch import DEPLOYMENT
from runyard.coordinator.grpc.messages.conversions import layer_from_message
from runyard.v1 import run_pb2

RUN_TAGS = "run tags"
"""Source of the layer with the highest precedence."""

LARGEST_LAYER = 16_384
"""Bytes of a deployment's requirements, and characters of a code location's.

Joining labels takes time quadratic in their number, and blocks the event loop.
"""


def layers_of(spec: run_pb2.LaunchSpec, ops: RequirementLayer | None) -> tuple[RequirementLayer, ...]:
    """Return the layers that a launch brings along, lowest precedence first.

    That of the deployment is always there.

    Args:
        spec: The launch.
        ops: The merged layer of its ops.

    Raises:
        InvalidField: A layer is invalid; the message names the tag or the field.
    """
    location = f"code location {spec.code_origin.location}"
    above = (
        _layer_from_location(spec.code_origin.container_context_json, location).from_source(location),
        *((ops,) if ops else ()),
        layer_from_tags(spec.tags, "the run").from_source(RUN_TAGS),
    )
    deployment = _layer_from_deployment(spec).from_source(DEPLOYMENT)
    return (deployment, *(each for each in above if not each.is_empty))


def _layer_from_deployment(spec: run_pb2.LaunchSpec) -> RequirementLayer:
    size = spec.requirements.ByteSize()
    if size > LARGEST_LAYER:
        raise InvalidField("spec.requirements", f"has {size} bytes, more than the {LARGEST_LAYER} allowed")
    stop_after = _seconds(spec.policies, "stop_after")
    return replace(
        layer_from_message(spec.requirements, "spec.requirements"),
        grace=_seconds(spec.policies, "grace"),
        max_queue_time=_seconds(spec.policies, "max_queue_time"),
        start_timeout=_seconds(spec.policies, "start_timeout"),
        on_disconnect=None if stop_after is None else StopAfter(stop_after),
    )


def _seconds(policies: run_pb2.Policies, field: str) -> float | None:
    if not policies.HasField(field):  # type: ignore[arg-type]
        return None
    given: Duration = getattr(policies, field)
    value = to_seconds(given)
    if value < 0:
        raise InvalidField(f"spec.policies.{field}", f"is {value:g} s; it cannot be negative")
    if value > LONGEST_SECONDS:
        raise InvalidField(f"spec.policies.{field}", f"is {value:g} s; give {LONGEST_SECONDS:g} at most")
    return value


def _layer_from_location(context_json: str, location: str) -> RequirementLayer:
    try:
        context = json.loads(context_json) if context_json else {}
    except (ValueError, RecursionError) as error:
        raise InvalidField("spec.code_origin.container_context_json", f"is not JSON ({error})") from None
    if not isinstance(context, Mapping):
        raise InvalidField("spec.code_origin.container_context_json", "is not a JSON object")
    ours = context.get(CONTEXT_KEY, {})
    where = f"container_context.{CONTEXT_KEY} of {location}"
    if not isinstance(ours, Mapping):
        raise InvalidField(where, 'is not a dictionary; write for example {"labels": {"zone": "a"}}')
    if ours and _size(ours) > LARGEST_LAYER:
        raise InvalidField(where, f"has more than {LARGEST_LAYER} characters")
    try:
        requirements = requirements_in(ours)
    except ValueError as error:
        raise InvalidField(where, str(error)) from None
    return layer_from_config(requirements, where)


def _size(config: Mapping[str, object]) -> int:
    try:
        return len(json.dumps(config))
    except RecursionError:  # it was read from less depth
        return LARGEST_LAYER + 1
