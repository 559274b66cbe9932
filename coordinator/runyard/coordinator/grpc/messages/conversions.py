"""Conversion of node resources, pressures and requirements between messages and types of the core."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Final

from runyard.common.defaults import DRIVER, ISOLATION_MODES
from runyard.common.names import LABEL_KEY, LABEL_VALUE, NAME
from runyard.common.quantities import LARGEST
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.model import NodeResources, Pressure
from runyard.coordinator.core.requirements.labels import FORMS, LabelRule, parse_label_rule
from runyard.coordinator.core.requirements.requirements import (
    CompiledRequirements,
    Preference,
    RequirementLayer,
)
from runyard.coordinator.core.requirements.resources import ONE_SLOT, Resources
from runyard.v1 import fleet_pb2, placement_pb2

LONGEST_MESSAGE: Final = 500
"""Characters of a message of a node."""


def capacity_of(message: placement_pb2.Offer) -> NodeResources:
    """Return the resources and attributes that a node offers.

    Raises:
        InvalidField: A name or an amount is malformed; the message names the field.
    """
    check_labels("offer.labels", dict(message.labels))
    for taint in message.taints:
        key, _, value = taint.partition("=")
        if not NAME.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise InvalidField("offer.taints", f"{taint[:80]!r} must be `key` or `key=value`")
    return NodeResources(
        labels=tuple(sorted(message.labels.items())),
        drivers=tuple(message.drivers),
        taints=tuple(sorted(message.taints)),
        resources=resources_of("offer.resources", message.resources),
        reserved=resources_of("offer.reserved", message.reserved),
        largest_run=resources_of("offer.largest_run", message.largest_run),
        gateway=message.gateway,
    )


def capacity_message(capacity: NodeResources) -> placement_pb2.Offer:
    """Return a node's offer as a message."""
    return placement_pb2.Offer(
        labels=dict(capacity.labels),
        drivers=capacity.drivers,
        taints=capacity.taints,
        resources=dict(capacity.resources),
        reserved=dict(capacity.reserved),
        largest_run=dict(capacity.largest_run),
        gateway=capacity.gateway,
    )


MOST_PRESSURES: Final = 8
"""Limit on the pressures of a node; agents know fewer kinds."""

_KINDS: Final = {
    fleet_pb2.PRESSURE_KIND_MEMORY: "memory",
    fleet_pb2.PRESSURE_KIND_DISK: "disk",
    fleet_pb2.PRESSURE_KIND_PIDS: "pids",
}


def pressures_of(message: Iterable[fleet_pb2.Pressure]) -> tuple[Pressure, ...]:
    """Return the pressures of a node. A kind that only a newer agent knows counts too."""
    first = itertools.islice(message, MOST_PRESSURES)
    return tuple(Pressure(_KINDS.get(each.kind, ""), each.message[:LONGEST_MESSAGE]) for each in first)


def pressure_messages(pressures: Iterable[Pressure]) -> list[fleet_pb2.Pressure]:
    """Return pressures as messages."""
    kinds = {name: kind for kind, name in _KINDS.items()}
    unknown = fleet_pb2.PRESSURE_KIND_UNSPECIFIED
    return [
        fleet_pb2.Pressure(kind=kinds.get(each.kind, unknown), message=each.message) for each in pressures
    ]


def layer_from_message(message: placement_pb2.Requirements, field: str) -> RequirementLayer:
    """Return the requirements of a message as one layer, without a source.

    Args:
        message: The requirements.
        field: Name of the message's field, for errors.

    Raises:
        InvalidField: A value is malformed; the message names the field.
    """
    for part, value in (("cluster", message.cluster), ("node", message.node), ("driver", message.driver)):
        if value and not NAME.fullmatch(value):
            raise InvalidField(
                f"{field}.{part}", f"{value[:80]!r} may hold only letters, digits, '.', '_' and '-'"
            )
    if message.isolation and message.isolation not in ISOLATION_MODES:
        modes = " or ".join(ISOLATION_MODES)
        raise InvalidField(
            f"{field}.isolation", f"{message.isolation[:80]!r} is not an isolation mode; write {modes}"
        )
    return RequirementLayer(
        cluster=message.cluster or None,
        node=message.node or None,
        labels=_label_rules(f"{field}.labels", message.labels),
        driver=message.driver or None,
        resources=resources_of(f"{field}.resources", message.resources),
        tolerations=tuple(message.tolerations),
        preferences=tuple(
            Preference(rule, each.weight or 1)
            for each in message.preferences
            for rule in _label_rules(f"{field}.preferences", [each.label])
        ),
        image=message.image or None,
        isolation=message.isolation or None,
    )


def requirements_of(message: placement_pb2.Requirements) -> CompiledRequirements:
    """Return the requirements of an attempt that an agent reports.

    Raises:
        InvalidField: A value is malformed; the message names the field.
    """
    layer = layer_from_message(message, "requirements")
    return CompiledRequirements(
        cluster=layer.cluster or "",
        node=layer.node or "",
        labels=layer.labels,
        driver=layer.driver or DRIVER,
        resources=layer.resources.at_least(ONE_SLOT),
        tolerations=layer.tolerations,
        preferences=layer.preferences,
        image=layer.image or "",
        isolation=layer.isolation or "",
    )


def resources_of(field: str, amounts: Mapping[str, int]) -> Resources:
    """Return amounts by name.

    Raises:
        InvalidField: A name is malformed or an amount is too large.
    """
    for name, amount in amounts.items():
        if not NAME.fullmatch(name):
            raise InvalidField(field, f"name {name[:80]!r} may hold only letters, digits, '.', '_' and '-'")
        if amount > LARGEST:
            raise InvalidField(field, f"{amount} of {name} is more than the maximum, {LARGEST}")
    return Resources.of(amounts)


def check_labels(field: str, labels: dict[str, str]) -> None:
    """Check the form of labels.

    Raises:
        InvalidField: A key or a value is malformed; the message names it.
    """
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise InvalidField(
                field, f"key {key[:80]!r} may hold only letters, digits, '.', '_', '-' and one '/'"
            )
        if not LABEL_VALUE.fullmatch(value):
            raise InvalidField(
                field,
                f"value {value[:80]!r} of {key!r} may hold only letters, digits and ._:/+@=- (128 at most)",
            )


def _label_rules(field: str, texts: Iterable[str]) -> tuple[LabelRule, ...]:
    try:
        return tuple(parse_label_rule(text) for text in texts)
    except ValueError as error:
        raise InvalidField(field, f"{error}; {FORMS}") from None
