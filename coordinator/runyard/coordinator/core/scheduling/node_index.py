"""Index of all nodes, so that finding one for a run does not visit each of them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from runyard.coordinator.core.model import Node
from runyard.coordinator.core.requirements.resources import SLOTS, Resources
from runyard.coordinator.core.routing.order import ClusterLoad
from runyard.coordinator.core.scheduling.filters import (
    FREE,
    FULL,
    Ask,
    NodeClass,
    may_scale_up_for,
    out_of_service,
)
from runyard.coordinator.core.scheduling.node_classes import CapacityBucket, NodeClassIndex, NodeMatcher
from runyard.coordinator.core.scheduling.scores import Amounts, Needs, fits

MAX_CACHED_RESULTS: Final = 2_000_000
"""Limit on cached results: number of matchers times number of node classes."""

MAX_EMPTY_CLASSES: Final = 64
"""Classes without nodes that are always kept, for nodes that leave and come back."""


@dataclass
class IndexedNode:
    """Entry of one node in the index."""

    node: Node
    class_index: NodeClassIndex
    total: Amounts
    free: Amounts
    bucket: CapacityBucket


@dataclass
class ClusterTally:
    """Sums over the nodes of a cluster that are in service, and the number of its live runs."""

    nodes: int = 0
    live_runs: int = 0
    total: dict[str, int] = field(default_factory=dict)
    free: dict[str, int] = field(default_factory=dict)

    @property
    def load(self) -> ClusterLoad:
        """Utilization of the cluster; 1 if it has no resources."""
        uses = [1.0 - self.free.get(name, 0) / total for name, total in self.total.items() if total]
        return ClusterLoad(min(1.0, max(uses, default=1.0)), self.live_runs)


class NodeIndex:
    """Nodes by class, the resources that runs hold on them, and the nodes freed since the last pass.

    Attributes:
        version: Counts every change; cached results hold for one version.
        total: Sum of the resources of all nodes, in service or not.
    """

    def __init__(self) -> None:
        self.version = 0
        self.total: dict[str, int] = {}
        self._nodes: dict[str, IndexedNode] = {}
        self._taken: dict[str, dict[str, int]] = {}
        self._live_runs: dict[str, int] = {}
        self._class_indexes: dict[NodeClass, NodeClassIndex] = {}
        self._in_order: list[NodeClassIndex] = []
        self._generation = 0
        self._clusters: dict[str, ClusterTally] = {}
        self._matchers: dict[Ask, NodeMatcher] = {}
        self._freed: dict[str, None] = {}

    # How it changes

    def put(self, node: Node) -> bool:
        """Store the present state of a node.

        Returns:
            True if it may now take other runs than before.
        """
        known = self._nodes.get(node.node_id)
        if known is not None and _is_same(known, node):
            self._take_warmth(known, node)
            return False
        if known is not None:
            self._take_out(known)
        node_class = NodeClass.of(node)
        class_index = self._class_indexes.get(node_class) or self._new_class_index(node_class)
        total = tuple(amount for _, amount in node.capacity.resources)
        self._put_in(node, class_index, total)
        self._freed[node.node_id] = None
        return True

    def _take_warmth(self, known: IndexedNode, node: Node) -> None:
        """Update what the node is warm for. Its free resources are the same, so no run is woken."""
        before, now = known.node.warm_for, node.warm_for
        if before != now:
            known.class_index.cool_down(node.node_id, known.bucket, before - now)
            known.class_index.warm_up(node.node_id, known.bucket, now - before)
        known.node = node

    def allocate(self, node_id: str, taken: Resources) -> None:
        """Reserve what a live run takes, even if that exceeds what the node has."""
        self._change(node_id, taken, 1)

    def release(self, node_id: str, taken: Resources) -> None:
        """Release what a run held."""
        self._change(node_id, taken, -1)
        self._freed[node_id] = None

    def forget_runs(self) -> None:
        """Release what all runs held."""
        for node_id in list(self._taken):
            self._taken[node_id].clear()
            self._live_runs[node_id] = 0
            if (known := self._nodes.get(node_id)) is not None:
                self._take_out(known)
                self._put_in(known.node, known.class_index, known.total)
            self._freed[node_id] = None
        for tally in self._clusters.values():
            tally.live_runs = 0

    def mark_freed(self, node_id: str) -> None:
        """Have waiting runs tried on the node again."""
        self.version += 1
        self._freed[node_id] = None

    def take_freed(self) -> list[str]:
        """Return the nodes that were freed or changed since the last call and can take runs."""
        if not self._freed:
            return []
        freed, self._freed = self._freed, {}
        return [node_id for node_id in freed if self._is_open(node_id)]

    @property
    def has_freed(self) -> bool:
        """True if `take_freed` may return nodes."""
        return bool(self._freed)

    # What it knows

    def __len__(self) -> int:
        return len(self._nodes)

    def matcher(self, ask: Ask) -> NodeMatcher:
        """Return the matcher of these requirements; recently used ones are cached."""
        matcher = self._matchers.pop(ask, None) or NodeMatcher(ask)
        self._matchers[ask] = matcher
        if len(self._matchers) * (len(self._in_order) + 1) > MAX_CACHED_RESULTS:
            del self._matchers[next(iter(self._matchers))]
        return matcher

    def node(self, node_id: str) -> IndexedNode | None:
        """Return the entry of a node, if it ever joined."""
        return self._nodes.get(node_id)

    def nodes(self) -> Iterator[IndexedNode]:
        """All nodes."""
        return iter(self._nodes.values())

    def taken(self, node_id: str) -> Mapping[str, int]:
        """Return what live runs hold of the node."""
        return self._taken.get(node_id, {})

    def clusters(self) -> Mapping[str, ClusterTally]:
        """Return the clusters that any node ever joined."""
        return self._clusters

    def tallies(self, names: Iterable[str]) -> Iterator[tuple[str, ClusterTally]]:
        """Return those of the clusters that have nodes."""
        return ((name, self._clusters[name]) for name in names if name in self._clusters)

    def class_indexes(self) -> Iterator[NodeClassIndex]:
        """Return the classes that have nodes."""
        return (class_index for class_index in self._in_order if class_index.buckets)

    def suitable(self, matcher: NodeMatcher, cluster: str | None = None) -> list[NodeClassIndex]:
        """Return the classes whose nodes could take the run if large enough."""
        return matcher.suitable(self._in_order, self._generation, cluster)

    def fits(self, matcher: NodeMatcher, node_id: str) -> Needs | None:
        """Return what the run takes of a node that can take it now; ignores refusals and reservations."""
        known = self._nodes.get(node_id)
        if known is None or known.bucket.reason != FREE or matcher.ask.requirements.node not in ("", node_id):
            return None
        needs = matcher.needs(known.class_index)
        return needs if needs is not None and fits(needs, known.free) else None

    def takers(self, matchers: Iterable[NodeMatcher], node_id: str) -> list[NodeMatcher]:
        """Return the matchers whose runs the node can take now; ignores refusals and reservations."""
        known = self._nodes.get(node_id)
        if known is None or known.bucket.reason != FREE:
            return []
        class_index, free = known.class_index, known.free
        return [
            matcher
            for matcher in matchers
            if (needs := matcher.needs(class_index)) is not None
            and fits(needs, free)
            and matcher.ask.requirements.node in ("", node_id)
        ]

    def could_ever(self, matcher: NodeMatcher, without: Collection[str] = ()) -> bool:
        """True if some node, other than those, could take the run when empty."""
        if named := matcher.ask.requirements.node:
            known = self._nodes.get(named)
            return known is not None and named not in without and _could_ever(matcher, known)
        for class_index in self.suitable(matcher):
            needs = matcher.needs(class_index)
            assert needs is not None
            for total, count in class_index.totals.items():
                if fits(needs, total) and count > self._count(class_index, total, without):
                    return True
        growing = (
            class_index
            for class_index in self.class_indexes()
            if may_scale_up_for(matcher.ask, class_index.node_class)
        )
        return any(
            not bucket.nodes.keys() <= set(without)
            for class_index in growing
            for bucket in class_index.buckets.values()
        )

    def _count(self, class_index: NodeClassIndex, total: Amounts, node_ids: Collection[str]) -> int:
        known = [self._nodes[node_id] for node_id in node_ids if node_id in self._nodes]
        return sum(each.class_index is class_index and each.total == total for each in known)

    def _is_open(self, node_id: str) -> bool:
        known = self._nodes.get(node_id)
        return known is not None and known.bucket.reason == FREE

    # How it is kept

    def _put_in(self, node: Node, class_index: NodeClassIndex, total: Amounts) -> None:
        node_id = node.node_id
        taken = self._taken.get(node_id, {})
        free = tuple(
            amount - taken.get(name, 0)
            for name, amount in zip(class_index.node_class.offered, total, strict=True)
        )
        bucket = class_index.enter(node_id, _reason(node, class_index, free), total, free, node.warm_for)
        class_index.count(total, 1)
        known = self._nodes[node_id] = IndexedNode(node, class_index, total, free, bucket)
        tally = self._clusters.setdefault(node.cluster, ClusterTally())
        tally.live_runs += self._live_runs.get(node_id, 0)
        _add(self.total, class_index.node_class.offered, total, 1)
        self._sum_up(tally, known, 1)
        self.version += 1

    def _take_out(self, known: IndexedNode) -> None:
        node_id = known.node.node_id
        known.class_index.leave(node_id, known.bucket, known.node.warm_for)
        known.class_index.count(known.total, -1)
        tally = self._clusters[known.node.cluster]
        tally.live_runs -= self._live_runs.get(node_id, 0)
        _add(self.total, known.class_index.node_class.offered, known.total, -1)
        self._sum_up(tally, known, -1)

    def _sum_up(self, tally: ClusterTally, known: IndexedNode, sign: int) -> None:
        if known.bucket.reason in (FREE, FULL):
            tally.nodes += sign
            _add(tally.total, known.class_index.node_class.offered, known.total, sign)
            _add(tally.free, known.class_index.node_class.offered, known.free, sign)

    def _change(self, node_id: str, taken: Resources, sign: int) -> None:
        self.version += 1
        of_node = self._taken.setdefault(node_id, {})
        for name, amount in taken:
            of_node[name] = of_node.get(name, 0) + sign * amount
        self._live_runs[node_id] = self._live_runs.get(node_id, 0) + sign
        known = self._nodes.get(node_id)
        if known is None:
            return
        tally = self._clusters[known.node.cluster]
        tally.live_runs += sign
        offered = known.class_index.node_class.offered
        change = tuple(-sign * taken[name] for name in offered)
        if known.bucket.reason in (FREE, FULL):
            _add(tally.free, offered, change, 1)
        known.free = tuple(free + more for free, more in zip(known.free, change, strict=True))
        warm_for = known.node.warm_for
        known.class_index.leave(node_id, known.bucket, warm_for)
        reason = _reason(known.node, known.class_index, known.free)
        known.bucket = known.class_index.enter(node_id, reason, known.total, known.free, warm_for)

    def _new_class_index(self, node_class: NodeClass) -> NodeClassIndex:
        empty = sum(not class_index.buckets for class_index in self._in_order) if self._may_tidy() else 0
        if empty > MAX_EMPTY_CLASSES and 2 * empty > len(self._in_order):
            self._in_order = [class_index for class_index in self._in_order if class_index.buckets]
            self._class_indexes = {class_index.node_class: class_index for class_index in self._in_order}
            self._generation += 1
        class_index = self._class_indexes[node_class] = NodeClassIndex(node_class)
        self._in_order.append(class_index)
        return class_index

    def _may_tidy(self) -> bool:
        # Counting is as long as the list is, so it is done each time that the list has grown by a part.
        return len(self._in_order) % MAX_EMPTY_CLASSES == 0

    def check(self) -> None:
        """Raises AssertionError if the sums do not agree with the nodes. For tests."""
        afresh = NodeIndex()
        afresh._taken = {node_id: dict(taken) for node_id, taken in self._taken.items()}
        afresh._live_runs = dict(self._live_runs)
        for known in self._nodes.values():
            afresh.put(known.node)
        for node_id, known in self._nodes.items():
            again = afresh._nodes[node_id]
            assert (known.total, known.free, known.bucket.reason) == (
                again.total,
                again.free,
                again.bucket.reason,
            ), node_id
            assert node_id in known.bucket.nodes, f"{node_id} is not in its bucket"
        filled = {class_index.node_class: _contents(class_index) for class_index in self.class_indexes()}
        assert filled == {
            class_index.node_class: _contents(class_index) for class_index in afresh.class_indexes()
        }
        assert _without_zeros(self.total) == _without_zeros(afresh.total)
        for name, tally in self._clusters.items():
            again_tally = afresh._clusters.get(name, ClusterTally())
            assert (tally.nodes, tally.live_runs) == (again_tally.nodes, again_tally.live_runs), name
            assert _without_zeros(tally.total) == _without_zeros(again_tally.total), name
            assert _without_zeros(tally.free) == _without_zeros(again_tally.free), name


def _could_ever(matcher: NodeMatcher, known: IndexedNode) -> bool:
    needs = matcher.needs(known.class_index)
    enough = needs is not None and fits(needs, known.total)
    return enough or may_scale_up_for(matcher.ask, known.class_index.node_class)


def _is_same(known: IndexedNode, node: Node) -> bool:
    before = known.node
    return (
        before.capacity == node.capacity
        and before.cluster == node.cluster
        and out_of_service(before) == out_of_service(node)
    )


def _reason(node: Node, class_index: NodeClassIndex, free: Amounts) -> str:
    if reason := out_of_service(node):
        return reason
    offered = class_index.node_class.offered
    slots = free[offered.index(SLOTS)] if SLOTS in offered else 0
    return FREE if slots > 0 else FULL


def _add(sums: dict[str, int], names: tuple[str, ...], amounts: Amounts, sign: int) -> None:
    for name, amount in zip(names, amounts, strict=True):
        sums[name] = sums.get(name, 0) + sign * amount


def _contents(class_index: NodeClassIndex) -> object:
    buckets = {key: (set(bucket.nodes), _warm_nodes(bucket)) for key, bucket in class_index.buckets.items()}
    open_buckets = {(bucket.total, bucket.free) for bucket in class_index.open}
    warm = {
        location: {(bucket.total, bucket.free) for bucket in bucket_set}
        for location, bucket_set in class_index.warm.items()
    }
    return buckets, open_buckets, warm, dict(class_index.totals)


def _warm_nodes(bucket: CapacityBucket) -> dict[str, set[str]]:
    return {location: set(nodes.nodes) for location, nodes in bucket.warm.items()}


def _without_zeros(sums: Mapping[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in sums.items() if amount}
