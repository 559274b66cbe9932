"""Routing rules of the operator, and the route that a run gets from them."""

import enum
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.requirements.requirements import EMPTY_LAYER, RequirementLayer


class Order(enum.Enum):
    """Order in which a run tries the clusters of its route."""

    FIRST_FIT = "first_fit"
    """As listed."""
    LEAST_LOADED = "least_loaded"
    """The cluster whose scarcest resource is least in use first."""
    WEIGHTED = "weighted"
    """Random, in proportion to the weights; the same run always gets the same order."""
    SPREAD = "spread"
    """The cluster with the fewest live runs first."""


@dataclass(frozen=True)
class WeightedCluster:
    """A cluster of a route. Only `Order.WEIGHTED` uses the weight."""

    name: str
    weight: int = 1


@dataclass(frozen=True)
class Route:
    """Clusters to which a run may go.

    Attributes:
        rule: Name of the matching rule; empty: none.
        clusters: The clusters in the rule's order; empty: any.
        spill_after: Seconds that a run waits for a cluster before the next one opens to it; 0: all are open.
        closed: Reason why the run must not be placed for now; empty: it may be.
    """

    rule: str = ""
    clusters: tuple[WeightedCluster, ...] = ()
    order: Order = Order.FIRST_FIT
    spill_after: float = 0.0
    closed: str = ""


ANYWHERE: Final = Route()


Globs = tuple[str, ...]
"""Patterns with `*`, `?` and `[abc]`, of which any may match; none at all matches everything."""


@dataclass(frozen=True)
class Match:
    """Condition of a rule; every field must match.

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
