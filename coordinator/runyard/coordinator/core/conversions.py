"""Offers and requirements, between the protocol and the core."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Final

from runyard.common.defaults import ISOLATION_MODES
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
"""Characters of what a node says of itself."""


def offer_of(told: placement_pb2.Offer) -> NodeResources:
    """What a node says that it offers.

    Raises:
        InvalidField: A name or an amount is malformed; the message names the field.
    """
    check_labels("offer.labels", dict(told.labels))
    for taint in told.taints:
        key, _, value = taint.partition("=")
        if not NAME.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise InvalidField("offer.taints", f"{taint[:80]!r} must be `key` or `key=value`")
    return NodeResources(
        labels=tuple(sorted(told.labels.items())),
        drivers=tuple(told.drivers),
        taints=tuple(sorted(told.taints)),
        resources=resources_of("offer.resources", told.resources),
        reserved=resources_of("offer.reserved", told.reserved),
        largest_run=resources_of("offer.largest_run", told.largest_run),
        gateway=told.gateway,
    )


def offer_view(offer: NodeResources) -> placement_pb2.Offer:
    """An offer as the protocol shows it."""
    return placement_pb2.Offer(
        labels=dict(offer.labels),
        drivers=offer.drivers,
        taints=offer.taints,
        resources=dict(offer.resources),
        reserved=dict(offer.reserved),
        largest_run=dict(offer.largest_run),
        gateway=offer.gateway,
    )


MOST_PRESSURES: Final = 8
"""More kinds of pressure than any agent knows."""

_KINDS: Final = {
    fleet_pb2.PRESSURE_KIND_MEMORY: "memory",
    fleet_pb2.PRESSURE_KIND_DISK: "disk",
    fleet_pb2.PRESSURE_KIND_PIDS: "pids",
}


def pressures_of(told: Iterable[fleet_pb2.Pressure]) -> tuple[Pressure, ...]:
    """What a node says that it is short of. A kind that only a newer agent knows counts too."""
    some = itertools.islice(told, MOST_PRESSURES)
    return tuple(Pressure(_KINDS.get(each.kind, ""), each.message[:LONGEST_MESSAGE]) for each in some)


def pressure_views(pressures: Iterable[Pressure]) -> list[fleet_pb2.Pressure]:
    """Pressures as the protocol shows them."""
    kinds = {name: kind for kind, name in _KINDS.items()}
    unknown = fleet_pb2.PRESSURE_KIND_UNSPECIFIED
    return [
        fleet_pb2.Pressure(kind=kinds.get(each.kind, unknown), message=each.message) for each in pressures
    ]


def layer_from_message(asked: placement_pb2.Requirements, field: str) -> RequirementLayer:
    """What a message asks for, as one layer.

    Args:
        asked: The message.
        field: Where it stands, for messages.

    Raises:
        InvalidField: Something in it is malformed; the message names the field.
    """
    for part, value in (("cluster", asked.cluster), ("node", asked.node), ("driver", asked.driver)):
        if value and not NAME.fullmatch(value):
            raise InvalidField(
                f"{field}.{part}", f"{value[:80]!r} may hold only letters, digits, '.', '_' and '-'"
            )
    if asked.isolation and asked.isolation not in ISOLATION_MODES:
        modes = " or ".join(ISOLATION_MODES)
        raise InvalidField(
            f"{field}.isolation", f"{asked.isolation[:80]!r} is not an isolation mode; write {modes}"
        )
    return RequirementLayer(
        cluster=asked.cluster or None,
        node=asked.node or None,
        labels=_label_rules(f"{field}.labels", asked.labels),
        driver=asked.driver or None,
        resources=resources_of(f"{field}.resources", asked.resources),
        tolerations=tuple(asked.tolerations),
        preferences=tuple(
            Preference(rule, wish.weight or 1)
            for wish in asked.preferences
            for rule in _label_rules(f"{field}.preferences", [wish.label])
        ),
        image=asked.image or None,
        isolation=asked.isolation or None,
    )


def requirements_of(told: placement_pb2.Requirements) -> CompiledRequirements:
    """What an agent says that an attempt of its holds.

    Raises:
        InvalidField: Something in it is malformed; the message names the field.
    """
    layer = layer_from_message(told, "requirements")
    return CompiledRequirements(
        cluster=layer.cluster or "",
        node=layer.node or "",
        labels=layer.labels,
        driver=layer.driver or "process",
        resources=layer.resources.at_least(ONE_SLOT),
        tolerations=layer.tolerations,
        preferences=layer.preferences,
        image=layer.image or "",
        isolation=layer.isolation or "",
    )


def requirements_view(wanted: CompiledRequirements) -> placement_pb2.Requirements:
    """Requirements as the protocol shows them."""
    return placement_pb2.Requirements(
        cluster=wanted.cluster,
        node=wanted.node,
        labels=map(str, wanted.labels),
        driver=wanted.driver,
        resources=dict(wanted.resources),
        tolerations=wanted.tolerations,
        preferences=[
            placement_pb2.Preference(label=str(wish.label), weight=wish.weight) for wish in wanted.preferences
        ],
        image=wanted.image,
        isolation=wanted.isolation,
    )


def resources_of(field: str, amounts: Mapping[str, int]) -> Resources:
    """Amounts by name.

    Raises:
        InvalidField: A name is malformed or an amount is too large.
    """
    for name, amount in amounts.items():
        if not NAME.fullmatch(name):
            raise InvalidField(field, f"name {name[:80]!r} may hold only letters, digits, '.', '_' and '-'")
        if amount > LARGEST:
            raise InvalidField(field, f"{amount} of {name} is more than there can be")
    return Resources.of(amounts)


def check_labels(field: str, labels: dict[str, str]) -> None:
    """Checks the form of labels.

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
