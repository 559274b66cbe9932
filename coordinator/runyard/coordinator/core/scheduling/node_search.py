"""Finds the best node for a run, among all or among a few."""

import itertools
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.scheduling.node_classes import Cell, Demand, Kind, Lot, Shelf
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.policy import Strategy
from runyard.coordinator.core.scheduling.scores import (
    WARM,
    Needs,
    Option,
    Rated,
    Seeker,
    fits,
    rated,
    worth_of_site,
)

COMPARED: Final = 256
"""Up to so many groups of equal nodes, all that can take the run are compared; of more, a sample."""

SAMPLED: Final = 64
"""So many groups that can take the run are a sample."""


@dataclass(frozen=True)
class Quest:
    """One look for a node.

    Attributes:
        clusters: Tried one after the other; None: all at once.
        excluded: Nodes that this run must not have now: they refused it, or are reserved for another.
    """

    seeker: Seeker
    demand: Demand
    clusters: tuple[str, ...] | None
    excluded: Collection[str]
    strategy: Strategy


@dataclass(frozen=True)
class Choice:
    """The node that was found.

    Attributes:
        among: How many nodes of its cluster were found free for the run.
        warm_for: The code location, if the node was chosen because it is warm for that; else empty.
    """

    node_id: str
    cluster: str
    among: int
    warm_for: str = ""


def search(index: NodeIndex, quest: Quest) -> Choice | None:
    """The best node of all that can take the run now, or None if there is none."""
    if named := quest.demand.ask.requirements.node:
        return search_among(index, quest, [named])
    if quest.clusters is None:
        return _best_of_kinds(quest, index.suitable(quest.demand))
    for cluster in quest.clusters:
        if choice := _best_of_kinds(quest, index.suitable(quest.demand, cluster)):
            return choice
    return None


def search_among(index: NodeIndex, quest: Quest, node_ids: Iterable[str]) -> Choice | None:
    """The best of these nodes, or None if none of them can take the run now."""
    options: dict[str, list[Rated]] = {}
    for node_id in node_ids:
        needs = index.fits(quest.demand, node_id)
        if needs is None or node_id in quest.excluded:
            continue
        known = index.node(node_id)
        assert known is not None
        is_warm = quest.seeker.location in known.node.warm_for
        option = Option(node_id, known.kind.site, known.total, known.free, needs, is_warm)
        of_site = worth_of_site(quest.seeker, option.site)
        found = rated(quest.seeker, option, quest.strategy, of_site)
        options.setdefault(known.node.cluster, []).append(found)
    if quest.clusters is None:
        of_all = [each for of_cluster in options.values() for each in of_cluster]
        return _choice(quest, of_all, len(of_all))
    for cluster in quest.clusters:
        if cluster in options:
            return _choice(quest, options[cluster], len(options[cluster]))
    return None


def _choice(quest: Quest, options: list[Rated], among: int) -> Choice | None:
    if not options:
        return None
    _, node_id, chosen = min(options)
    decided = chosen.warm and min(map(_apart_from_warmth, options))[1] != node_id
    return Choice(node_id, chosen.site.cluster, among, quest.seeker.location if decided else "")


def _apart_from_warmth(option: Rated) -> Rated:
    negated, node_id, each = option
    return negated + WARM.weight * each.warm, node_id, each


def _best_of_kinds(quest: Quest, kinds: Sequence[Kind]) -> Choice | None:
    known: dict[Kind, tuple[Needs, float]] = {}
    options: list[Rated] = []
    compared = among = 0
    groups = sum(len(kind.open) for kind in kinds)
    cells, enough = (_all(kinds), groups) if groups <= COMPARED else (_shuffled(quest, kinds), SAMPLED)
    for kind, cell in cells:
        needs, of_site = known.get(kind) or _get_to_know(quest, kind, known)
        if not fits(needs, cell.free) or not (firsts := _firsts(quest, cell)):
            continue
        for node_id, is_warm in firsts:
            option = Option(node_id, kind.site, cell.total, cell.free, needs, is_warm)
            options.append(rated(quest.seeker, option, quest.strategy, of_site))
        among += len(cell.nodes)
        if quest.excluded:
            among -= sum(each in cell.nodes for each in quest.excluded)
        compared += 1
        if compared == enough:
            break
    return _choice(quest, options, among)


def _get_to_know(quest: Quest, kind: Kind, known: dict[Kind, tuple[Needs, float]]) -> tuple[Needs, float]:
    """What the run takes of nodes of the kind, and what they are worth to it; kept for this look."""
    needs = quest.demand.needs(kind)
    assert needs is not None, "only suitable kinds are looked at"
    known[kind] = needs, worth_of_site(quest.seeker, kind.site)
    return known[kind]


def _all(kinds: Sequence[Kind]) -> Iterator[tuple[Kind, Cell]]:
    return ((kind, cell) for kind in kinds for cell in kind.open)


def _shuffled(quest: Quest, kinds: Sequence[Kind]) -> Iterator[tuple[Kind, Cell]]:
    """All cells, in another order for each run, of every kind in turn.

    What is warm comes first, but takes no more than half of the sample.
    """
    start = zlib.crc32(quest.seeker.run_id.encode())
    kinds = [*kinds[start % len(kinds) :], *kinds[: start % len(kinds)]]
    shelves = [(kind, shelf) for kind in kinds if (shelf := kind.warm.get(quest.seeker.location))]
    warm = dict.fromkeys(itertools.islice(_in_turn(shelves, start), SAMPLED // 2))
    yield from warm
    for kind_and_cell in _in_turn([(kind, kind.open) for kind in kinds], start):
        if kind_and_cell not in warm:
            yield kind_and_cell


def _in_turn(shelves: Sequence[tuple[Kind, Shelf]], start: int) -> Iterator[tuple[Kind, Cell]]:
    """A cell of each shelf, then the next of each, until all have come."""
    for step in range(max((len(shelf) for _, shelf in shelves), default=0)):
        for kind, shelf in shelves:
            if step < len(shelf):
                yield kind, shelf[(start + step) % len(shelf)]


def _firsts(quest: Quest, cell: Cell) -> list[tuple[str, bool]]:
    """Of equal nodes the first, and the first that is warm; each with whether it is."""
    first = _first(quest, cell)
    if first is None:
        return []
    warm = cell.warm.get(quest.seeker.location)
    if warm is None:
        return [(first, False)]
    if first in warm.nodes:
        return [(first, True)]
    first_warm = _first(quest, warm)
    return [(first, False)] if first_warm is None else [(first, False), (first_warm, True)]


def _first(quest: Quest, lot: Lot) -> str | None:
    """Of nodes that are equal otherwise, one that has not failed the run before, if there is one."""
    excluded, avoided = quest.excluded, quest.seeker.avoided
    if not excluded and not avoided:
        return lot.first(_any)
    clean = lot.first(lambda node_id: node_id not in excluded and node_id not in avoided)
    return clean or lot.first(lambda node_id: node_id not in excluded)


def _any(_: str) -> bool:
    return True
