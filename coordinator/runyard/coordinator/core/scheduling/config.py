"""Configuration of scheduling: defaults, rules, the queue, quotas."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from runyard.coordinator.core.requirements.requirements import EMPTY_LAYER, RequirementLayer
from runyard.coordinator.core.requirements.resources import NOTHING, Resources
from runyard.coordinator.core.routing.rules import Rule


class Strategy(enum.Enum):
    """Order in which nodes fill up."""

    BINPACK = "binpack"
    """One after the other, so that large runs find empty nodes."""
    SPREAD = "spread"
    """Evenly, so that a lost node takes few runs with it."""


class NoRuleAction(enum.Enum):
    """Handling of a run that no rule matches, without a default cluster."""

    ANYWHERE = "anywhere"
    QUEUE = "queue"
    FAIL = "fail"


class NoNodeAction(enum.Enum):
    """Handling of a run that no node of the fleet could ever take."""

    FAIL = "fail"
    QUEUE = "queue"


@dataclass(frozen=True)
class QueueConfig:
    """Order and limits of the queue.

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
    """Bounds on what the live runs of one share hold.

    Attributes:
        guaranteed: While the share holds less, its runs take precedence over those of others.
        limit: The share never holds more; resources that are not named here are unlimited.
    """

    guaranteed: Resources = NOTHING
    limit: Resources = NOTHING


@dataclass(frozen=True)
class SchedulingConfig:
    """Configuration of scheduling, from the routing file and the coordinator's settings.

    Attributes:
        max_placement_attempts: Nodes on which a launch is tried before the run fails.
        client_clusters: Clusters of each bound client; other clients are not bound.
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
"""Configuration of a coordinator without a routing file."""
