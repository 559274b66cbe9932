"""Finds the best node for a run, among all or among a few."""

import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.placement.index import NodeIndex
from runyard.coordinator.core.placement.kinds import Cell, Demand, Kind
from runyard.coordinator.core.placement.scores import (
    Option,
    Seeker,
    best,
    fits,
    worth,
    worth_of_site,
)
from runyard.coordinator.core.policy import Strategy

COMPARED: Final = 256
"""So many groups of equal nodes that can take the run are compared at most; of more, a sample."""


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
    """

    node_id: str
    cluster: str
    among: int


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
    options: dict[str, list[tuple[float, Option]]] = {}
    for node_id in node_ids:
        needs = index.fits(quest.demand, node_id)
        if needs is None or node_id in quest.excluded:
            continue
        known = index.node(node_id)
        assert known is not None
        option = Option(node_id, known.kind.site, known.total, known.free, needs)
        rating = worth(quest.seeker, option, quest.strategy, worth_of_site(quest.seeker, option.site))
        options.setdefault(known.node.cluster, []).append((rating, option))
    if quest.clusters is None:
        return _choice([rated for of_cluster in options.values() for rated in of_cluster])
    for cluster in quest.clusters:
        if cluster in options:
            return _choice(options[cluster])
    return None


def _choice(rated: list[tuple[float, Option]]) -> Choice | None:
    chosen = best(rated)
    return Choice(chosen.node_id, chosen.site.cluster, len(rated)) if chosen else None


def _best_of_kinds(quest: Quest, kinds: Iterable[Kind]) -> Choice | None:
    cells = [(kind, cell) for kind in kinds for cell in kind.open.values()]
    if len(cells) > COMPARED:
        start = zlib.crc32(quest.seeker.run_id.encode()) % len(cells)
        cells = cells[start:] + cells[:start]
    rated: list[tuple[float, Option]] = []
    among = 0
    worths: dict[Kind, float] = {}
    for kind, cell in cells:
        needs = quest.demand.needs(kind)
        if needs is None or not fits(needs, cell.free):
            continue
        node_id = _first(quest, cell)
        if node_id is None:
            continue
        if kind not in worths:
            worths[kind] = worth_of_site(quest.seeker, kind.site)
        option = Option(node_id, kind.site, cell.total, cell.free, needs)
        rated.append((worth(quest.seeker, option, quest.strategy, worths[kind]), option))
        among += len(cell.nodes) - sum(each in cell.nodes for each in quest.excluded)
        if len(rated) == COMPARED:
            break
    chosen = best(rated)
    return Choice(chosen.node_id, chosen.site.cluster, among) if chosen else None


def _first(quest: Quest, cell: Cell) -> str | None:
    """Of nodes that are equal otherwise, one that has not failed the run before, if there is one."""
    excluded, avoided = quest.excluded, quest.seeker.avoided
    if not excluded and not avoided:
        return cell.first(_any)
    clean = cell.first(lambda node_id: node_id not in excluded and node_id not in avoided)
    return clean or cell.first(lambda node_id: node_id not in excluded)


def _any(_: str) -> bool:
    return True
