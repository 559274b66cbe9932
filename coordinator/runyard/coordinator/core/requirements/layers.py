"""What all layers come to: later ones go before earlier ones, field by field."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from runyard.common.defaults import DRIVER, GRACE_SECONDS
from runyard.common.quantities import show_quantity
from runyard.coordinator.core.requirements.labels import LabelRule, label_is
from runyard.coordinator.core.requirements.requirements import (
    NO_WANTS,
    Keep,
    Layer,
    OnDisconnect,
    Policies,
    Requirements,
    StopAfter,
    Wants,
)
from runyard.coordinator.core.requirements.resources import ONE_SLOT, Resources

T = TypeVar("T")

CONFINING: Final = label_is("runyard/isolation", "cgroup2", "cgroup1", "systemd")
"""The label by which agents tell that the kernel keeps their processes within limits."""


@dataclass(frozen=True)
class Origin:
    """Where one field of the requirements comes from, for people.

    Attributes:
        overridden: What lower layers had said and who, nearest first.
    """

    field: str
    value: str
    source: str
    overridden: tuple[tuple[str, str], ...] = ()


def requirements_and_policies(layers: Sequence[Layer]) -> tuple[Requirements, Policies]:
    """Adds up layers.

    Labels are replaced by key, resources by name, everything else as a whole. Every run takes one slot.

    Args:
        layers: From the lowest.
    """
    wants = NO_WANTS
    for layer in layers:
        wants = overlaid(wants, layer.wants)
    requirements = Requirements(
        cluster=wants.cluster or "",
        node=wants.node or "",
        labels=(*wants.labels, *_labels_for(wants)),
        driver=wants.driver or DRIVER,
        resources=Resources.of(dict(wants.resources.overlaid(ONE_SLOT))),
        tolerations=wants.tolerations,
        preferences=wants.preferences,
        image=wants.image or "",
        isolation=wants.isolation or "",
    )
    policies = Policies(
        grace=GRACE_SECONDS if wants.grace is None else wants.grace,
        max_queue_time=wants.max_queue_time,
        start_timeout=wants.start_timeout,
        stop_after=wants.on_disconnect.seconds if isinstance(wants.on_disconnect, StopAfter) else None,
    )
    return requirements, policies


def _labels_for(wants: Wants) -> tuple[LabelRule, ...]:
    """Which nodes can give the isolation that is required; drivers of containers always can."""
    is_process = (wants.driver or DRIVER) == DRIVER
    return (CONFINING,) if wants.isolation == "require" and is_process else ()


def overlaid(lower: Wants, upper: Wants) -> Wants:
    """Both, where `upper` goes before `lower`."""
    return Wants(
        cluster=_above(lower.cluster, upper.cluster),
        node=_above(lower.node, upper.node),
        labels=_labels(lower.labels, upper.labels),
        driver=_above(lower.driver, upper.driver),
        resources=lower.resources.overlaid(upper.resources),
        tolerations=upper.tolerations or lower.tolerations,
        preferences=upper.preferences or lower.preferences,
        image=_above(lower.image, upper.image),
        isolation=_above(lower.isolation, upper.isolation),
        grace=_above(lower.grace, upper.grace),
        max_queue_time=_above(lower.max_queue_time, upper.max_queue_time),
        start_timeout=_above(lower.start_timeout, upper.start_timeout),
        on_disconnect=lower.on_disconnect if upper.on_disconnect is None else upper.on_disconnect,
    )


def _above(lower: T | None, upper: T | None) -> T | None:
    return lower if upper is None else upper


def _labels(lower: tuple[LabelRule, ...], upper: tuple[LabelRule, ...]) -> tuple[LabelRule, ...]:
    replaced = {rule.key for rule in upper}
    return (*(rule for rule in lower if rule.key not in replaced), *upper)


def origins(layers: Sequence[Layer]) -> list[Origin]:
    """Who said what: the fields that any layer names, in a fixed order.

    Args:
        layers: From the lowest.
    """
    said: dict[str, list[tuple[str, str]]] = {}
    for layer in reversed(layers):
        for field, value in _fields(layer.wants):
            said.setdefault(field, []).append((value, layer.source))
    return [
        Origin(field, *said[field][0], overridden=tuple(said[field][1:]))
        for field in sorted(said, key=_field_order)
    ]


_ORDER: Final = (
    "cluster",
    "node",
    "labels",
    "driver",
    "image",
    "isolation",
    "resources",
    "tolerations",
    "prefer",
)


def _field_order(field: str) -> tuple[int, str]:
    kind = field.partition(".")[0]
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), field)


def _fields(wants: Wants) -> Iterator[tuple[str, str]]:
    """What a layer says, by the part of it that another layer replaces."""
    for field in ("cluster", "node", "driver", "image", "isolation"):
        if (name := getattr(wants, field)) is not None:
            yield field, name
    for key in dict.fromkeys(rule.key for rule in wants.labels):
        yield f"labels.{key}", ",".join(str(rule) for rule in wants.labels if rule.key == key)
    for name, amount in wants.resources:
        yield f"resources.{name}", show_quantity(name, amount)
    if wants.tolerations:
        yield "tolerations", ",".join(wants.tolerations)
    if wants.preferences:
        yield "prefer", ",".join(_preference(str(wish.label), wish.weight) for wish in wants.preferences)
    for field in ("grace", "max_queue_time", "start_timeout"):
        if (seconds := getattr(wants, field)) is not None:
            yield field, f"{seconds:g}s"
    if wants.on_disconnect is not None:
        yield "on_disconnect", show_on_disconnect(wants.on_disconnect)


def _preference(label: str, weight: int) -> str:
    return label if weight == 1 else f"{label} (weight {weight})"


def show_on_disconnect(choice: OnDisconnect) -> str:
    """As it is written in tags."""
    match choice:
        case Keep():
            return "keep"
        case StopAfter(seconds):
            return f"stop_after={seconds:g}s"
