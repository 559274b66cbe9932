"""Scores of the nodes that can take a run: each from 0 to 1, with a weight."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import CPU, MEMORY, SLOTS
from runyard.coordinator.core.scheduling.config import Strategy
from runyard.coordinator.core.scheduling.filters import NodeClass

ORDINARY: Final = frozenset({SLOTS, CPU, MEMORY})
"""Resources of every node. All others are scarce, and kept for runs that require them."""

Amounts = tuple[int, ...]
"""Amount of each resource of a node class, in the order of the class."""

Needs = tuple[tuple[int, int], ...]
"""Amounts that a run takes on nodes of a class: pairs of position and amount."""


@dataclass(frozen=True)
class ScoringContext:
    """The run that nodes are scored for.

    Attributes:
        avoided: Nodes that failed earlier attempts of the run.
    """

    run_id: str
    requirements: CompiledRequirements
    location: str = ""
    avoided: tuple[str, ...] = ()


class Candidate(NamedTuple):
    """Node that can take the run. A plain tuple, since one search makes hundreds.

    Attributes:
        warm: True if the node has a ready warm server for the run's code location.
    """

    node_id: str
    node_class: NodeClass
    total: Amounts
    free: Amounts
    needs: Needs
    warm: bool = False


def needs_on(wanted: CompiledRequirements, node_class: NodeClass) -> Needs:
    """Return what the run takes of nodes of the class, which must have all of these resources."""
    return tuple((node_class.offered.index(name), amount) for name, amount in wanted.resources if amount)


def fits(needs: Needs, amounts: Amounts) -> bool:
    """True if the amounts suffice."""
    for position, amount in needs:  # noqa: SIM110 - called for every node; a loop is twice as fast
        if amounts[position] < amount:
            return False
    return True


# Scores of node classes


def preferences(context: ScoringContext, node_class: NodeClass) -> float:
    """Fraction, by weight, of the preferences that the class satisfies."""
    wishes = context.requirements.preferences
    total = sum(wish.weight for wish in wishes)
    if not total:
        return 1.0
    return sum(wish.weight for wish in wishes if wish.label.holds(node_class.label_values)) / total


def spares(context: ScoringContext, node_class: NodeClass) -> float:
    """1 if the class has no scarce resource that the run does not use."""
    asked = context.requirements.resources
    return float(all(name in ORDINARY or asked[name] for name in node_class.offered))


# Scores of nodes


def packed(_: ScoringContext, candidate: Candidate) -> float:
    """Utilization of the node with the run, of the scarcest resource that the run takes."""
    return use_after(candidate.total, candidate.free, candidate.needs)


def spread(_: ScoringContext, candidate: Candidate) -> float:
    """Remaining free fraction of that resource."""
    return 1.0 - use_after(candidate.total, candidate.free, candidate.needs)


def clean(context: ScoringContext, candidate: Candidate) -> float:
    """1 if the node has not failed an earlier attempt of the run."""
    return 0.0 if candidate.node_id in context.avoided else 1.0


def warm(_: ScoringContext, candidate: Candidate) -> float:
    """1 if the run can start as a fork of a warm server."""
    return 1.0 if candidate.warm else 0.0


def use_after(total: Amounts, free: Amounts, needs: Needs) -> float:
    """Return the utilization of the scarcest resource that the run takes, with the run."""
    most = 0.0
    for position, amount in needs:
        use = (total[position] - free[position] + amount) / total[position]
        if use > most:
            most = use
    return most


@dataclass(frozen=True)
class ClassScorer:
    """Score that all nodes of a class share."""

    name: str
    weight: float
    score: Callable[[ScoringContext, NodeClass], float]


@dataclass(frozen=True)
class NodeScorer:
    """Score of one node."""

    name: str
    weight: float
    score: Callable[[ScoringContext, Candidate], float]


CLASS_SCORERS: Final = (
    ClassScorer("preferences", 4.0, preferences),
    ClassScorer("spares", 2.0, spares),
)

CLEAN: Final = NodeScorer("clean", 16.0, clean)
WARM: Final = NodeScorer("warm", 3.0, warm)

NODE_SCORERS: Final = {
    Strategy.BINPACK: (CLEAN, WARM, NodeScorer("binpack", 1.0, packed)),
    Strategy.SPREAD: (CLEAN, WARM, NodeScorer("spread", 1.0, spread)),
}
"""The weights make each score a tie-breaker among nodes that are equal in the heavier ones."""


def class_score(context: ScoringContext, node_class: NodeClass) -> float:
    """Return the weighted sum of the class scores."""
    return sum(score.weight * score.score(context, node_class) for score in CLASS_SCORERS)


def score(context: ScoringContext, candidate: Candidate, strategy: Strategy, of_class: float) -> float:
    """Return the weighted sum of all scores; `of_class` is the score of the node's class."""
    for score in NODE_SCORERS[strategy]:
        of_class += score.weight * score.score(context, candidate)
    return of_class


def scores(context: ScoringContext, candidate: Candidate, strategy: Strategy) -> dict[str, float]:
    """Return every score by its name."""
    of_class = {score.name: score.score(context, candidate.node_class) for score in CLASS_SCORERS}
    return of_class | {score.name: score.score(context, candidate) for score in NODE_SCORERS[strategy]}


ScoredCandidate = tuple[float, str, Candidate]
"""Negated score, node ID and candidate: the smallest is the best."""


def scored(
    context: ScoringContext, candidate: Candidate, strategy: Strategy, of_class: float
) -> ScoredCandidate:
    """Return the candidate with its score; ties go to the smaller node ID."""
    return -score(context, candidate, strategy, of_class), candidate.node_id, candidate
