"""Which of the nodes that can take a run is the best: small marks from 0 to 1, each with a weight."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import CPU, MEMORY, SLOTS
from runyard.coordinator.core.scheduling.filters import Site
from runyard.coordinator.core.scheduling.policy import Strategy

ORDINARY: Final = frozenset({SLOTS, CPU, MEMORY})
"""What every node has. Everything else is scarce, and kept for runs that ask for it."""

Amounts = tuple[int, ...]
"""Of each resource that a site offers, in its order."""

Needs = tuple[tuple[int, int], ...]
"""What a run takes of a site's resources: pairs of position and amount."""


@dataclass(frozen=True)
class Seeker:
    """A run that looks for a node.

    Attributes:
        avoided: Nodes that failed earlier attempts of it.
    """

    run_id: str
    requirements: CompiledRequirements
    location: str = ""
    avoided: tuple[str, ...] = ()


class Option(NamedTuple):
    """A node that can take the run. A plain tuple, since hundreds are made for one choice.

    Attributes:
        warm: Whether the run's code location has a process there that its runs can be forks of.
    """

    node_id: str
    site: Site
    total: Amounts
    free: Amounts
    needs: Needs
    warm: bool = False


def needs_there(wanted: CompiledRequirements, site: Site) -> Needs:
    """What the run takes there; the site must offer all of it."""
    return tuple((site.offered.index(name), amount) for name, amount in wanted.resources if amount)


def fits(needs: Needs, amounts: Amounts) -> bool:
    """True if the amounts hold what is needed."""
    for position, amount in needs:  # noqa: SIM110 - called for every node; a loop is twice as fast
        if amounts[position] < amount:
            return False
    return True


# What all nodes of a site share


def preferences(seeker: Seeker, site: Site) -> float:
    """How much, by weight, of what the run would like is there."""
    wishes = seeker.requirements.preferences
    total = sum(wish.weight for wish in wishes)
    if not total:
        return 1.0
    return sum(wish.weight for wish in wishes if wish.label.holds(site.label_values)) / total


def spares(seeker: Seeker, site: Site) -> float:
    """Nothing scarce is there that the run has no use for."""
    asked = seeker.requirements.resources
    return float(all(name in ORDINARY or asked[name] for name in site.offered))


# What differs from node to node


def packed(_: Seeker, option: Option) -> float:
    """How full the node will be, in what becomes scarcest of what the run takes."""
    return use_after(option.total, option.free, option.needs)


def spread(_: Seeker, option: Option) -> float:
    """How empty the node will be."""
    return 1.0 - use_after(option.total, option.free, option.needs)


def clean(seeker: Seeker, option: Option) -> float:
    """The node has not failed an earlier attempt of the run."""
    return 0.0 if option.node_id in seeker.avoided else 1.0


def warm(_: Seeker, option: Option) -> float:
    """The run need not import what others have imported before it."""
    return 1.0 if option.warm else 0.0


def use_after(total: Amounts, free: Amounts, needs: Needs) -> float:
    """Share in use, once the run is there, of the scarcest resource that it takes."""
    most = 0.0
    for position, amount in needs:
        use = (total[position] - free[position] + amount) / total[position]
        if use > most:
            most = use
    return most


@dataclass(frozen=True)
class SiteScore:
    """A mark for all nodes of a site."""

    name: str
    weight: float
    mark: Callable[[Seeker, Site], float]


@dataclass(frozen=True)
class NodeScore:
    """A mark for one node."""

    name: str
    weight: float
    mark: Callable[[Seeker, Option], float]


SITE_SCORES: Final = (
    SiteScore("preferences", 4.0, preferences),
    SiteScore("spares", 2.0, spares),
)

CLEAN: Final = NodeScore("clean", 16.0, clean)
WARM: Final = NodeScore("warm", 3.0, warm)

NODE_SCORES: Final = {
    Strategy.BINPACK: (CLEAN, WARM, NodeScore("binpack", 1.0, packed)),
    Strategy.SPREAD: (CLEAN, WARM, NodeScore("spread", 1.0, spread)),
}
"""The weights are such that a mark says nothing where a heavier one has spoken clearly."""


def worth_of_site(seeker: Seeker, site: Site) -> float:
    """Weighted sum of what all nodes of the site share."""
    return sum(score.weight * score.mark(seeker, site) for score in SITE_SCORES)


def worth(seeker: Seeker, option: Option, strategy: Strategy, of_site: float) -> float:
    """Weighted sum of all marks; `of_site` is what the node's site is worth."""
    for score in NODE_SCORES[strategy]:
        of_site += score.weight * score.mark(seeker, option)
    return of_site


def marks(seeker: Seeker, option: Option, strategy: Strategy) -> dict[str, float]:
    """Every mark by its name."""
    of_site = {score.name: score.mark(seeker, option.site) for score in SITE_SCORES}
    return of_site | {score.name: score.mark(seeker, option) for score in NODE_SCORES[strategy]}


Rated = tuple[float, str, Option]
"""An option behind its worth, negated, and its node ID: the smallest is the best."""


def rated(seeker: Seeker, option: Option, strategy: Strategy, of_site: float) -> Rated:
    """The option with what it is worth; ties go to the smaller node ID."""
    return -worth(seeker, option, strategy, of_site), option.node_id, option
