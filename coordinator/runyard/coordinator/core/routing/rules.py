"""The operator's rules, and the route that a run gets from them."""

import enum
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.requirements.requirements import EMPTY_LAYER, RequirementLayer


class Order(enum.Enum):
    """How a route chooses among its clusters."""

    FIRST_FIT = "first_fit"
    """The first one in the list that has room."""
    LEAST_LOADED = "least_loaded"
    """The one whose scarcest resource is least in use."""
    WEIGHTED = "weighted"
    """By chance, in proportion to the weights; the same run always draws the same order."""
    SPREAD = "spread"
    """The one with the fewest live runs."""


@dataclass(frozen=True)
class WeightedCluster:
    """A cluster of a route. The weight counts for `Order.WEIGHTED` alone."""

    name: str
    weight: int = 1


@dataclass(frozen=True)
class Route:
    """Where a run may go.

    Attributes:
        rule: Name of the rule that gave it; empty: none did.
        clusters: The clusters in the rule's order; empty: any.
        spill_after: Seconds that a run waits for a cluster before the next one opens to it; 0: all are open.
        closed: Why the run must not be placed at all for now; empty: it may.
    """

    rule: str = ""
    clusters: tuple[WeightedCluster, ...] = ()
    order: Order = Order.FIRST_FIT
    spill_after: float = 0.0
    closed: str = ""


ANYWHERE: Final = Route()


Globs = tuple[str, ...]
"""Patterns with `*`, `?` and `[abc]`, of which any may match; none at all: whatever there is will do."""


@dataclass(frozen=True)
class Match:
    """Which runs a rule is for; every field must match.

    Attributes:
        tags: By name of the tag, in the order of the names; the run must have the tag.
    """

    job: Globs = ()
    code_location: Globs = ()
    repository: Globs = ()
    deployment: Globs = ()
    tags: tuple[tuple[str, Globs], ...] = ()


@dataclass(frozen=True)
class Rule:
    """One rule. Its requirements override those of the coordinator and the deployment."""

    name: str
    match: Match
    clusters: tuple[WeightedCluster, ...] = ()
    order: Order = Order.FIRST_FIT
    spill_after: float = 0.0
    requirements: RequirementLayer = EMPTY_LAYER
