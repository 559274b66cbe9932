"""Compilation of layers: a later layer overrides the earlier ones, field by field."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from runyard.common.defaults import DRIVER, GRACE_SECONDS
from runyard.common.quantities import show_quantity
from runyard.coordinator.core.requirements.labels import LabelRule, label_is
from runyard.coordinator.core.requirements.requirements import (
    EMPTY_LAYER,
    CompiledRequirements,
    Keep,
    OnDisconnect,
    RequirementLayer,
    StopAfter,
    TimeLimits,
)
from runyard.coordinator.core.requirements.resources import ONE_SLOT, Resources

T = TypeVar("T")

CONFINING: Final = label_is("runyard/isolation", "cgroup2", "cgroup1", "systemd")
"""Label that agents set where the kernel keeps their processes within limits."""


@dataclass(frozen=True)
class Origin:
    """Source of one field of the requirements, for people.

    Attributes:
        overridden: Values of lower layers and their sources, nearest first.
    """

    field: str
    value: str
    source: str
    overridden: tuple[tuple[str, str], ...] = ()


def compile_layers(layers: Sequence[RequirementLayer]) -> tuple[CompiledRequirements, TimeLimits]:
    """Overlay layers and fill in defaults.

    Labels are overridden by key, resources by name, everything else as a whole. Every run takes one slot.

    Args:
        layers: Lowest precedence first.
    """
    total = EMPTY_LAYER
    for layer in layers:
        total = overlaid(total, layer)
    requirements = CompiledRequirements(
        cluster=total.cluster or "",
        node=total.node or "",
        labels=(*total.labels, *_labels_for(total)),
        driver=total.driver or DRIVER,
        resources=Resources.of(dict(total.resources.overlaid(ONE_SLOT))),
        tolerations=total.tolerations,
        preferences=total.preferences,
        image=total.image or "",
        isolation=total.isolation or "",
    )
    time_limits = TimeLimits(
        grace=GRACE_SECONDS if total.grace is None else total.grace,
        max_queue_time=total.max_queue_time,
        start_timeout=total.start_timeout,
        stop_after=total.on_disconnect.seconds if isinstance(total.on_disconnect, StopAfter) else None,
    )
    return requirements, time_limits


def _labels_for(layer: RequirementLayer) -> tuple[LabelRule, ...]:
    """Return the rules for nodes that can isolate processes; container drivers always can."""
    is_process = (layer.driver or DRIVER) == DRIVER
    return (CONFINING,) if layer.isolation == "require" and is_process else ()


def overlaid(lower: RequirementLayer, upper: RequirementLayer) -> RequirementLayer:
    """Return one layer with the fields of both, where `upper` overrides `lower`."""
    return RequirementLayer(
        source=upper.source,
        cluster=_override(lower.cluster, upper.cluster),
        node=_override(lower.node, upper.node),
        labels=_labels(lower.labels, upper.labels),
        driver=_override(lower.driver, upper.driver),
        resources=lower.resources.overlaid(upper.resources),
        tolerations=upper.tolerations or lower.tolerations,
        preferences=upper.preferences or lower.preferences,
        image=_override(lower.image, upper.image),
        isolation=_override(lower.isolation, upper.isolation),
        grace=_override(lower.grace, upper.grace),
        max_queue_time=_override(lower.max_queue_time, upper.max_queue_time),
        start_timeout=_override(lower.start_timeout, upper.start_timeout),
        on_disconnect=lower.on_disconnect if upper.on_disconnect is None else upper.on_disconnect,
    )


def _override(lower: T | None, upper: T | None) -> T | None:
    return lower if upper is None else upper


def _labels(lower: tuple[LabelRule, ...], upper: tuple[LabelRule, ...]) -> tuple[LabelRule, ...]:
    replaced = {rule.key for rule in upper}
    return (*(rule for rule in lower if rule.key not in replaced), *upper)


def origins(layers: Sequence[RequirementLayer]) -> list[Origin]:
    """Return the source of each field that any layer sets, in a fixed order.

    Args:
        layers: Lowest precedence first.
    """
    values: dict[str, list[tuple[str, str]]] = {}
    for layer in reversed(layers):
        for field, value in _fields(layer):
            values.setdefault(field, []).append((value, layer.source))
    return [
        Origin(field, *values[field][0], overridden=tuple(values[field][1:]))
        for field in sorted(values, key=_field_order)
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


def _fields(layer: RequirementLayer) -> Iterator[tuple[str, str]]:
    """Yield the set fields of a layer, each as the unit that another layer overrides."""
    for field in ("cluster", "node", "driver", "image", "isolation"):
        if (name := getattr(layer, field)) is not None:
            yield field, name
    for key in dict.fromkeys(rule.key for rule in layer.labels):
        yield f"labels.{key}", ",".join(str(rule) for rule in layer.labels if rule.key == key)
    for name, amount in layer.resources:
        yield f"resources.{name}", show_quantity(name, amount)
    if layer.tolerations:
        yield "tolerations", ",".join(layer.tolerations)
    if layer.preferences:
        yield "prefer", ",".join(_preference(str(each.label), each.weight) for each in layer.preferences)
    for field in ("grace", "max_queue_time", "start_timeout"):
        if (seconds := getattr(layer, field)) is not None:
            yield field, f"{seconds:g}s"
    if layer.on_disconnect is not None:
        yield "on_disconnect", show_on_disconnect(layer.on_disconnect)


def _preference(label: str, weight: int) -> str:
    return label if weight == 1 else f"{label} (weight {weight})"


def show_on_disconnect(choice: OnDisconnect) -> str:
    """Return the notation of tags."""
    match choice:
        case Keep():
            return "keep"
        case StopAfter(seconds):
            return f"stop_after={seconds:g}s"
