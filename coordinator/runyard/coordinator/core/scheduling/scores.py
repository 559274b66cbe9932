"""Which of the nodes that can take a run is the best: small marks from 0 to 1, each with a weight."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import CPU, MEMORY, SLOTS
from runyard.coordinator.core.scheduling.config import Strategy
from runyard.coordinator.core.scheduling.filters import NodeClass

ORDINARY: Final = frozenset({SLOTS, CPU, MEMORY})
"""What every node has. Everything else is scarce, and kept for runs that ask for it."""

Amounts = tuple[int, ...]
"""Of each resource that a site offers, in its order."""

Needs = tuple[tuple[int, int], ...]
"""What a run takes of a site's resources: pairs of position and amount."""


@dataclass(frozen=True)
class ScoringContext:
    """A run that looks for a node.

    Attributes:
        avoided: Nodes that failed earlier attempts of it.
    """

    run_id: str
    requirements: CompiledRequirements
    location: str = ""
    avoided: tuple[str, ...] = ()


class Candidate(NamedTuple):
    """A node that can take the run. A plain tuple, since hundreds are made for one choice.

    Attributes:
        warm: Whether the run's code location has a process there that its runs can be forks of.
    """

    node_id: str
    node_class: NodeClass
    total: Amounts
    free: Amounts
    needs: Needs
    warm: bool = False


def needs_on(wanted: CompiledRequirements, node_class: NodeClass) -> Needs:
    """What the run takes there; the site must offer all of it."""
    return tuple((node_class.offered.index(name), amount) for name, amount in wanted.resources if amount)


def fits(needs: Needs, amounts: Amounts) -> bool:
    """True if the amounts hold what is needed."""
    for position, amount in needs:  # noqa: SIM110 - called for every node; a loop is twice as fast
        if amounts[position] < amount:
            return False
    return True


# What all nodes of a site share


def preferences(context: ScoringContext, node_class: NodeClass) -> float:
    """How much, by weight, of what the run would like is there."""
    wishes = context.requirements.preferences
    total = sum(wish.weight for wish in wishes)
    if not total:
        return 1.0
    return sum(wish.weight for wish in wishes if wish.label.holds(node_class.label_values)) / total


def spares(context: ScoringContext, node_class: NodeClass) -> float:
    """Nothing scarce is there that the run has no use for."""
    asked = context.requirements.resources
    return float(all(name in ORDINARY or asked[name] for name in node_class.offered))


# What differs from node to node


def packed(_: ScoringContext, candidate: Candidate) -> float:
    """How full the node will be, in what becomes scarcest of what the run takes."""
    return use_after(candidate.total, candidate.free, candidate.needs)


def spread(_: ScoringContext, candidate: Candidate) -> float:
    """How empty the node will be."""
    return 1.0 - use_after(candidate.total, candidate.free, candidate.needs)


def clean(context: ScoringContext, candidate: Candidate) -> float:
    """The node has not failed an earlier attempt of the run."""
    return 0.0 if candidate.node_id in context.avoided else 1.0


def warm(_: ScoringContext, candidate: Candidate) -> float:
    """The run need not import what others have imported before it."""
    return 1.0 if candidate.warm else 0.0


def use_after(total: Amounts, free: Amounts, needs: Needs) -> float:
    """Share in use, once the run is there, of the scarcest resource that it takes."""
    most = 0.0
    for position, amount in needs:
        use = (total[position] - free[position] + amount) / total[position]
        if use > most:
            most = use
    return most


@dataclass(frozen=True)
class ClassScorer:
    """A mark for all nodes of a site."""

    name: str
    weight: float
    score: Callable[[ScoringContext, NodeClass], float]


@dataclass(frozen=True)
class NodeScorer:
    """A mark for one node."""

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
"""The weights are such that a mark says nothing where a heavier one has spoken clearly."""


def class_score(context: ScoringContext, node_class: NodeClass) -> float:
    """Weighted sum of what all nodes of the site share."""
    return sum(score.weight * score.score(context, node_class) for score in CLASS_SCORERS)


def score(context: ScoringContext, candidate: Candidate, strategy: Strategy, of_class: float) -> float:
    """Weighted sum of all marks; `of_site` is what the node's site is worth."""
    for score in NODE_SCORERS[strategy]:
        of_class += score.weight * score.score(context, candidate)
    return of_class


def scores(context: ScoringContext, candidate: Candidate, strategy: Strategy) -> dict[str, float]:
    """Every mark by its name."""
    of_class = {score.name: score.score(context, candidate.node_class) for score in CLASS_SCORERS}
    return of_class | {score.name: score.score(context, candidate) for score in NODE_SCORERS[strategy]}


ScoredCandidate = tuple[float, str, Candidate]
"""An option behind its worth, negated, and its node ID: the smallest is the best."""


def scored(
    context: ScoringContext, candidate: Candidate, strategy: Strategy, of_class: float
) -> ScoredCandidate:
    """The option with what it is worth; ties go to the smaller node ID."""
    return -score(context, candidate, strategy, of_class), candidate.node_id, candidate
