"""What the operator has decided on placement: defaults, rules, the queue, quotas."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from runyard.coordinator.core.requirements.requirements import EMPTY_LAYER, RequirementLayer
from runyard.coordinator.core.requirements.resources import NOTHING, Resources
from runyard.coordinator.core.routing.rules import Rule


class Strategy(enum.Enum):
    """How nodes fill up."""

    BINPACK = "binpack"
    """One after the other, so that large runs find empty nodes."""
    SPREAD = "spread"
    """Evenly, so that a lost node takes few runs with it."""


class NoRuleAction(enum.Enum):
    """What becomes of a run that no rule matches, where there is no default cluster."""

    ANYWHERE = "anywhere"
    QUEUE = "queue"
    FAIL = "fail"


class NoNodeAction(enum.Enum):
    """What becomes of a run that no node of the fleet could ever take."""

    FAIL = "fail"
    QUEUE = "queue"


@dataclass(frozen=True)
class QueueConfig:
    """How waiting runs are ordered.

    Attributes:
        share_by: The tag whose values share the fleet fairly; empty: the code location.
        age_step: Seconds of waiting that raise a run's priority by one; None: waiting does not.
        limit: How many runs may wait; a further launch is refused.
        limit_per_share: As `limit`, for each share.
        reserve_after: Seconds of waiting after which the first of those runs that younger ones have overtaken
            gets a node reserved.
        reservation: Seconds for which a node is reserved before another is tried.
    """

    share_by: str = ""
    age_step: float | None = 600.0
    limit: int = 50_000
    limit_per_share: int = 50_000
    reserve_after: float = 60.0
    reservation: float = 600.0


@dataclass(frozen=True)
class Quota:
    """What the live runs of one share may hold.

    Attributes:
        least: Until the share holds this much of something, its runs take precedence over those of others.
        most: More than this it never holds; only what is named here is bounded.
    """

    guaranteed: Resources = NOTHING
    limit: Resources = NOTHING


@dataclass(frozen=True)
class SchedulingConfig:
    """All of it.

    Attributes:
        most_places: On how many nodes a launch is tried that none of them starts.
        confinement: By who launched them: the clusters in which runs may be. Who is not here is not bound.
    """

    defaults: RequirementLayer = EMPTY_LAYER
    strategy: Strategy = Strategy.BINPACK
    rules: tuple[Rule, ...] = ()
    default_cluster: str = ""
    on_no_matching_rule: NoRuleAction = NoRuleAction.ANYWHERE
    on_no_eligible_node: NoNodeAction = NoNodeAction.FAIL
    queue: QueueConfig = QueueConfig()
    quotas: dict[str, Quota] = field(default_factory=dict)
    max_placement_attempts: int = 3
    client_clusters: Mapping[str, frozenset[str]] = field(default_factory=dict)


DEFAULT_CONFIG: Final = SchedulingConfig()
"""That of a coordinator without a routing file."""
