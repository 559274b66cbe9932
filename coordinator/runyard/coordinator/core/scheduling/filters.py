"""Filters: each excludes nodes that cannot take a run, with a short reason that can be counted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from runyard.coordinator.core.model import (
    Cordoned,
    Draining,
    Launch,
    Lost,
    Node,
    Suspect,
    Unreachable,
)
from runyard.coordinator.core.requirements.labels import first_broken
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import SLOTS, Resources

ANOTHER_NODE: Final = "not the requested node"
NOT_OPEN_YET: Final = "in a cluster not open yet"
REFUSED_IT: Final = "refused the run"
PRESSURE: Final = "pressure"
HELD: Final = "reserved for a larger run"
FULL: Final = "without a free slot"
FREE: Final = "free"
INSUFFICIENT: Final = "insufficient "


@dataclass(frozen=True)
class Ask:
    """The constraints that decide which nodes could ever take a run.

    Attributes:
        clusters: Clusters that the run's route allows; empty: any.
    """

    requirements: CompiledRequirements
    clusters: tuple[str, ...] = ()

    @classmethod
    def of(cls, launch: Launch) -> Self:
        """Return the constraints of a launch; a cluster in its requirements overrides its route."""
        wanted = launch.requirements
        if wanted.cluster:
            return cls(wanted, (wanted.cluster,))
        return cls(wanted, tuple(cluster.name for cluster in launch.route.clusters))


@dataclass(frozen=True)
class NodeClass:
    """Properties that nodes of one class share: all but the amounts of their resources.

    Attributes:
        offered: Names of the resources, in order.
    """

    cluster: str
    labels: tuple[tuple[str, str], ...]
    drivers: tuple[str, ...]
    taints: tuple[str, ...]
    offered: tuple[str, ...]
    largest_run: Resources
    gateway: bool

    @classmethod
    def of(cls, node: Node) -> Self:
        """Return the class of a node."""
        offer = node.capacity
        return cls(
            node.cluster,
            offer.labels,
            offer.drivers,
            offer.taints,
            tuple(name for name, _ in offer.resources),
            offer.largest_run,
            offer.gateway,
        )

    @cached_property
    def label_values(self) -> dict[str, str]:
        """The labels by key."""
        return dict(self.labels)


StaticFilter = Callable[[Ask, NodeClass], str | None]
"""Returns the reason why no node of the class can ever take the run, or None."""


def wrong_cluster(ask: Ask, node_class: NodeClass) -> str | None:
    """A run stays in the clusters of its route."""
    return "in another cluster" if ask.clusters and node_class.cluster not in ask.clusters else None


def lacks_label(ask: Ask, node_class: NodeClass) -> str | None:
    """Every rule on labels must hold."""
    broken = first_broken(ask.requirements.labels, node_class.label_values)
    return f"did not match label {broken}" if broken else None


def lacks_driver(ask: Ask, node_class: NodeClass) -> str | None:
    """The node must be able to start workers in the way the run asks for."""
    driver = ask.requirements.driver
    return None if driver in node_class.drivers else f"without driver {driver}"


def taint_not_tolerated(ask: Ask, node_class: NodeClass) -> str | None:
    """Every taint must be tolerated: by name, by name and value, or all by `*`."""
    tolerated = ask.requirements.tolerations
    if "*" in tolerated:
        return None
    for taint in node_class.taints:
        if taint not in tolerated and taint.partition("=")[0] not in tolerated:
            return f"with untolerated taint {taint}"
    return None


def offers_none(ask: Ask, node_class: NodeClass) -> str | None:
    """The class must have every resource that the run takes."""
    for name, amount in ask.requirements.resources:
        if amount and name not in node_class.offered:
            return f"without {name}"
    return None


def larger_than_one_run_may_be(ask: Ask, node_class: NodeClass) -> str | None:
    """A gateway may limit each run to less than its total."""
    for name, most in node_class.largest_run:
        if ask.requirements.resources[name] > most:
            return f"with too little {name} for one run"
    return None


STATIC_FILTERS: Final[tuple[StaticFilter, ...]] = (
    wrong_cluster,
    lacks_label,
    lacks_driver,
    taint_not_tolerated,
    offers_none,
    larger_than_one_run_may_be,
)
"""Filters whose result depends on the class alone and does not change with time."""


def static_reason(ask: Ask, node_class: NodeClass) -> str | None:
    """Return the first static reason against all nodes of a class, or None."""
    for static_filter in STATIC_FILTERS:
        if reason := static_filter(ask, node_class):
            return reason
    return None


def may_scale_up_for(ask: Ask, node_class: NodeClass) -> bool:
    """True for a gateway that only lacks resources now: its cluster may grow, even from nothing."""
    others = (static_filter for static_filter in STATIC_FILTERS if static_filter is not offers_none)
    return node_class.gateway and not any(static_filter(ask, node_class) for static_filter in others)


def too_small(wanted: CompiledRequirements, total: Mapping[str, int]) -> str | None:
    """The node must have enough for the run when it is empty."""
    name = wanted.resources.lacking(total)
    return f"with too little {name} in total" if name else None


def static_node_reason(ask: Ask, node: Node) -> str | None:
    """Return the first static reason against the node, or None if it could take the run when empty."""
    if ask.requirements.node not in ("", node.node_id):
        return ANOTHER_NODE
    return static_reason(ask, NodeClass.of(node)) or too_small(
        ask.requirements, dict(node.capacity.resources)
    )


@dataclass(frozen=True)
class View:
    """Present state of a node, relative to one run.

    Attributes:
        free: Resources that no run holds; an adopted run may make them negative.
        open: Its cluster is open to the run.
        refused: It refused an earlier attempt of this launch.
        held: It is reserved for another run.
    """

    node: Node
    free: Mapping[str, int]
    open: bool = True
    refused: bool = False
    held: bool = False


DynamicFilter = Callable[[CompiledRequirements, View], str | None]
"""Returns the reason why the node cannot take the run now, or None."""


def not_open_yet(_: CompiledRequirements, view: View) -> str | None:
    """The clusters of a route may open one after the other."""
    return None if view.open else NOT_OPEN_YET


def refused_it(_: CompiledRequirements, view: View) -> str | None:
    """A node that refused a launch does not get it again."""
    return REFUSED_IT if view.refused else None


def not_in_service(_: CompiledRequirements, view: View) -> str | None:
    """A node that is silent, under pressure, cordoned or draining takes no run."""
    return out_of_service(view.node)


def held_for_another(_: CompiledRequirements, view: View) -> str | None:
    """A reserved node takes no other run."""
    return HELD if view.held else None


def full(wanted: CompiledRequirements, view: View) -> str | None:
    """The node must have enough free resources, and a free slot."""
    if view.free.get(SLOTS, 0) < 1:
        return FULL
    lacking = wanted.resources.lacking(view.free)
    return why_full(lacking)


def why_full(lacking: str | None) -> str | None:
    """Return the reason for a node on which that resource is used up."""
    if lacking is None:
        return None
    return FULL if lacking == SLOTS else f"{INSUFFICIENT}{lacking}"


DYNAMIC_FILTERS: Final[tuple[DynamicFilter, ...]] = (
    not_open_yet,
    refused_it,
    not_in_service,
    held_for_another,
    full,
)
"""Filters whose result changes with time."""


def reason_against(ask: Ask, view: View) -> str | None:
    """Return the first reason why the node cannot take the run now, or None."""
    if reason := static_node_reason(ask, view.node):
        return reason
    for dynamic_filter in DYNAMIC_FILTERS:
        if reason := dynamic_filter(ask.requirements, view):
            return reason
    return None


def out_of_service(node: Node) -> str | None:
    """Return why the node takes no new runs at all, or None."""
    match node.liveness, node.service:
        case Suspect(), _:
            return "suspect"
        case Unreachable(), _:
            return "unreachable"
        case Lost(), _:
            return "lost"
        case _, Draining():
            return "draining"
        case _, Cordoned():
            return "cordoned"
        case _:
            return f"under {node.pressures[0].reason}" if node.pressures else None
