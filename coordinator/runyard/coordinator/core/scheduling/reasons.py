"""Why nodes cannot take a run, counted, without looking at each of them."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from runyard.coordinator.core.requirements.resources import SLOTS
from runyard.coordinator.core.scheduling.filters import (
    ANOTHER_NODE,
    FREE,
    FULL,
    HELD,
    NOT_OPEN_YET,
    REFUSED_IT,
    Ask,
)
from runyard.coordinator.core.scheduling.node_classes import Cell, Demand, Kind, lacks
from runyard.coordinator.core.scheduling.node_index import NodeIndex, Placeable
from runyard.coordinator.core.scheduling.scores import Amounts

NAMED = 10
"""How many nodes or clusters a message names; gRPC cuts off errors that name a whole fleet."""


def count_reasons(
    index: NodeIndex,
    demand: Demand,
    *,
    clusters: Collection[str] | None = None,
    refused: Collection[str] = (),
    held: Collection[str] = (),
) -> Counter[str]:
    """Counts the nodes by the first reason against each; `free` for those that can take the run now.

    Args:
        clusters: Those that are open to the run; None: all.
        refused: Nodes that refused the launch.
        held: Nodes that are reserved for other runs.
    """
    special = {node_id: known for node_id in (*refused, *held) if (known := index.node(node_id))}
    if named := demand.ask.requirements.node:
        counts = Counter({ANOTHER_NODE: len(index)})
        if known := index.node(named):
            counts[ANOTHER_NODE] -= 1
            counts[_reason(demand, known, clusters, refused, held)] += 1
        return +counts
    counts = Counter()
    for kind in index.kinds():
        for cell in kind.cells.values():
            counts[reason_in(demand, kind, cell, clusters)] += len(cell.nodes)
    for known in special.values():
        counts[reason_in(demand, known.kind, known.cell, clusters)] -= 1
        counts[_reason(demand, known, clusters, refused, held)] += 1
    return +counts


def reason_in(demand: Demand, kind: Kind, cell: Cell, clusters: Collection[str] | None) -> str:
    """The first reason against the nodes of a cell, or `free`."""
    if never := _why_never(demand, kind, cell.total):
        return never
    if clusters is not None and kind.site.cluster not in clusters:
        return NOT_OPEN_YET
    if cell.reason != FREE:
        return cell.reason
    needs = demand.needs(kind)
    assert needs is not None
    lacking = lacks(kind, needs, cell.free)
    return FULL if lacking == SLOTS else lacking or FREE


def _reason(
    demand: Demand,
    known: Placeable,
    clusters: Collection[str] | None,
    refused: Collection[str],
    held: Collection[str],
) -> str:
    node_id = known.node.node_id
    reason = reason_in(demand, known.kind, known.cell, clusters)
    if reason == NOT_OPEN_YET or _why_never(demand, known.kind, known.total):
        return reason
    if node_id in refused:
        return REFUSED_IT
    in_service = known.cell.reason in (FREE, FULL)
    return HELD if in_service and node_id in held else reason


def in_words(counts: Mapping[str, int]) -> str:
    """The counts in one phrase, such as "12 nodes: 8 label zone=a, 3 memory, 1 draining"."""
    total = sum(counts.values())
    if not total:
        return "no node has joined yet"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = ", ".join(f"{count} {reason}" for reason, count in ordered)
    return f"{total} node{'s' if total != 1 else ''}: {parts}"


def what_is_missing(index: NodeIndex, ask: Ask) -> str | None:
    """Why no node that ever joined could take the run, in a sentence with a remedy; None if one could."""
    if not len(index):
        return "no node has joined this coordinator yet; start an agent first"
    known = index.clusters()
    if ask.clusters and not any(cluster in known for cluster in ask.clusters):
        wanted = " or ".join(map(repr, ask.clusters))
        return f"no cluster is named {wanted}; known clusters: {_a_few(known)}"
    node = ask.requirements.node
    if node and index.node(node) is None:
        names = [each.node.node_id for each in index.nodes()]
        return f"no node is named {node!r}; known nodes: {_a_few(names)}"
    demand = index.demand(ask)
    if index.could_ever(demand):
        return None
    return f"no node matches ({in_words(lasting_reasons(index, demand))})"


def lasting_reasons(index: NodeIndex, demand: Demand) -> Counter[str]:
    """Counts the nodes that could never take the run by the first reason against each."""
    counts: Counter[str] = Counter()
    if named := demand.ask.requirements.node:
        counts[ANOTHER_NODE] = len(index)
        if known := index.node(named):
            counts[ANOTHER_NODE] -= 1
            counts[_why_never(demand, known.kind, known.total)] += 1
    else:
        for kind in index.kinds():
            for total, count in kind.totals.items():
                counts[_why_never(demand, kind, total)] += count
    del counts[""]
    return +counts


def _why_never(demand: Demand, kind: Kind, total: Amounts) -> str:
    """The first lasting reason against nodes that have so much, or nothing."""
    view = demand.view(kind)
    if isinstance(view, str):
        return view
    lacking = lacks(kind, view, total)
    return f"too small in {lacking}" if lacking else ""


def _a_few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(ordered[:NAMED]) + more
