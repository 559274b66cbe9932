"""Counted reasons why nodes cannot take a run, by class and bucket rather than by node."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from runyard.common.humanize import nodes_available
from runyard.coordinator.core.scheduling.filters import (
    ANOTHER_NODE,
    FREE,
    FULL,
    HELD,
    NOT_OPEN_YET,
    REFUSED_IT,
    Ask,
    why_full,
)
from runyard.coordinator.core.scheduling.node_classes import (
    CapacityBucket,
    NodeClassIndex,
    NodeMatcher,
    lacks,
)
from runyard.coordinator.core.scheduling.node_index import IndexedNode, NodeIndex
from runyard.coordinator.core.scheduling.scores import Amounts

NAMED = 10
"""Nodes or clusters that a message names at most; gRPC cuts off errors that name a whole fleet."""


def count_reasons(
    index: NodeIndex,
    matcher: NodeMatcher,
    *,
    clusters: Collection[str] | None = None,
    refused: Collection[str] = (),
    held: Collection[str] = (),
) -> Counter[str]:
    """Count the nodes by the first reason against each; `FREE` for those that can take the run now.

    Args:
        clusters: Clusters that are open to the run; None: all.
        refused: Nodes that refused the launch.
        held: Nodes that are reserved for other runs.
    """
    special = {node_id: known for node_id in (*refused, *held) if (known := index.node(node_id))}
    if named := matcher.ask.requirements.node:
        counts = Counter({ANOTHER_NODE: len(index)})
        if known := index.node(named):
            counts[ANOTHER_NODE] -= 1
            counts[_reason(matcher, known, clusters, refused, held)] += 1
        return +counts
    counts = Counter()
    for class_index in index.class_indexes():
        for bucket in class_index.buckets.values():
            counts[reason_in(matcher, class_index, bucket, clusters)] += len(bucket.nodes)
    for known in special.values():
        counts[reason_in(matcher, known.class_index, known.bucket, clusters)] -= 1
        counts[_reason(matcher, known, clusters, refused, held)] += 1
    return +counts


def reason_in(
    matcher: NodeMatcher,
    class_index: NodeClassIndex,
    bucket: CapacityBucket,
    clusters: Collection[str] | None,
) -> str:
    """Return the first reason against the nodes of a bucket, or `FREE`."""
    if never := _static_reason(matcher, class_index, bucket.total):
        return never
    if clusters is not None and class_index.node_class.cluster not in clusters:
        return NOT_OPEN_YET
    if bucket.reason != FREE:
        return bucket.reason
    needs = matcher.needs(class_index)
    assert needs is not None
    lacking = lacks(class_index, needs, bucket.free)
    return why_full(lacking) or FREE


def _reason(
    matcher: NodeMatcher,
    known: IndexedNode,
    clusters: Collection[str] | None,
    refused: Collection[str],
    held: Collection[str],
) -> str:
    node_id = known.node.node_id
    reason = reason_in(matcher, known.class_index, known.bucket, clusters)
    if reason == NOT_OPEN_YET or _static_reason(matcher, known.class_index, known.total):
        return reason
    if node_id in refused:
        return REFUSED_IT
    in_service = known.bucket.reason in (FREE, FULL)
    return HELD if in_service and node_id in held else reason


def availability(counts: Mapping[str, int]) -> str:
    """Return the counts in one sentence, as `nodes_available` writes it; `FREE` counts as available."""
    if not counts:
        return "no node has joined yet"
    return nodes_available(counts.get(FREE, 0), {why: count for why, count in counts.items() if why != FREE})


def what_is_missing(index: NodeIndex, ask: Ask) -> str | None:
    """Return why no node that ever joined can take the run, in a sentence; None if one could."""
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
    matcher = index.matcher(ask)
    if index.could_ever(matcher):
        return None
    return f"no node matches ({availability(static_reasons(index, matcher))})"


def static_reasons(index: NodeIndex, matcher: NodeMatcher) -> Counter[str]:
    """Count the nodes that can never take the run by the first reason against each."""
    counts: Counter[str] = Counter()
    if named := matcher.ask.requirements.node:
        counts[ANOTHER_NODE] = len(index)
        if known := index.node(named):
            counts[ANOTHER_NODE] -= 1
            counts[_static_reason(matcher, known.class_index, known.total)] += 1
    else:
        for class_index in index.class_indexes():
            for total, count in class_index.totals.items():
                counts[_static_reason(matcher, class_index, total)] += count
    del counts[""]
    return +counts


def _static_reason(matcher: NodeMatcher, class_index: NodeClassIndex, total: Amounts) -> str:
    """Return the first static reason against nodes with that total, or an empty string."""
    view = matcher.view(class_index)
    if isinstance(view, str):
        return view
    lacking = lacks(class_index, view, total)
    return f"with too little {lacking} in total" if lacking else ""


def _a_few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(ordered[:NAMED]) + more
