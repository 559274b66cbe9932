"""Nodes by class, and within a class by free resources."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from runyard.coordinator.core.scheduling.filters import FREE, Ask, NodeClass, static_reason
from runyard.coordinator.core.scheduling.scores import Amounts, Needs, fits, needs_on

BucketKey = tuple[str, Amounts, Amounts]


class NodeSet:
    """Set of node IDs with quick access to the smallest.

    Attributes:
        nodes: Its members.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, None] = {}
        self._heap: list[str] = []
        self._in_heap: set[str] = set()

    def add(self, node_id: str) -> None:
        """Add a node."""
        self.nodes[node_id] = None
        if node_id not in self._in_heap:
            self._in_heap.add(node_id)
            heapq.heappush(self._heap, node_id)

    def discard(self, node_id: str) -> None:
        """Remove a node."""
        del self.nodes[node_id]

    def first(self, suits: Callable[[str], bool]) -> str | None:
        """Return the smallest node ID that satisfies the predicate, or None."""
        set_aside = []
        found = None
        while self._heap and found is None:
            top = self._heap[0]
            if top not in self.nodes:
                self._in_heap.discard(heapq.heappop(self._heap))
            elif suits(top):
                found = top
            else:
                set_aside.append(heapq.heappop(self._heap))
        for node_id in set_aside:
            heapq.heappush(self._heap, node_id)
        return found


class CapacityBucket(NodeSet):
    """Interchangeable nodes: same class, same free resources, same state.

    Attributes:
        reason: Why they take no run at all, or `FREE`.
        total: Amount of each resource of the class on each node.
        free: Amount of each that no run holds; empty if the nodes take no run.
        warm: The nodes with a ready warm server, by code location.
    """

    def __init__(self, reason: str, total: Amounts, free: Amounts) -> None:
        super().__init__()
        self.reason = reason
        self.total = total
        self.free = free
        self.warm: dict[str, NodeSet] = {}


class BucketSet:
    """Set of buckets with access by position, for sampling."""

    def __init__(self) -> None:
        self._buckets: list[CapacityBucket] = []
        self._places: dict[CapacityBucket, int] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def __iter__(self) -> Iterator[CapacityBucket]:
        return iter(self._buckets)

    def __getitem__(self, place: int) -> CapacityBucket:
        return self._buckets[place]

    def add(self, bucket: CapacityBucket) -> None:
        """Add a bucket, if it is not there yet."""
        if bucket not in self._places:
            self._places[bucket] = len(self._buckets)
            self._buckets.append(bucket)

    def discard(self, bucket: CapacityBucket) -> None:
        """Remove a bucket, if it is there; the last one takes its position."""
        place = self._places.pop(bucket, None)
        if place is None:
            return
        last = self._buckets.pop()
        if last is not bucket:
            self._buckets[place] = last
            self._places[last] = place


class NodeClassIndex:
    """All nodes of one class.

    Attributes:
        buckets: Its nodes, by capacity.
        open: Buckets whose nodes can take runs.
        warm: Open buckets with warm nodes, by code location.
        totals: Number of nodes by their total amounts.
    """

    def __init__(self, node_class: NodeClass) -> None:
        self.node_class = node_class
        self.buckets: dict[BucketKey, CapacityBucket] = {}
        self.open = BucketSet()
        self.warm: dict[str, BucketSet] = {}
        self.totals: dict[Amounts, int] = {}

    def enter(
        self, node_id: str, reason: str, total: Amounts, free: Amounts, warm_for: Iterable[str]
    ) -> CapacityBucket:
        """Add a node to its bucket."""
        key = (reason, total, free if reason == FREE else ())
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self.buckets[key] = CapacityBucket(*key)
            if reason == FREE:
                self.open.add(bucket)
        bucket.add(node_id)
        self.warm_up(node_id, bucket, warm_for)
        return bucket

    def leave(self, node_id: str, bucket: CapacityBucket, warm_for: Iterable[str]) -> None:
        """Remove a node from its bucket."""
        self.cool_down(node_id, bucket, warm_for)
        bucket.discard(node_id)
        if not bucket.nodes:
            del self.buckets[bucket.reason, bucket.total, bucket.free]
            self.open.discard(bucket)

    def warm_up(self, node_id: str, bucket: CapacityBucket, locations: Iterable[str]) -> None:
        """Mark a node of a bucket as warm for these code locations."""
        for location in locations:
            bucket.warm.setdefault(location, NodeSet()).add(node_id)
            if bucket.reason == FREE:
                self.warm.setdefault(location, BucketSet()).add(bucket)

    def cool_down(self, node_id: str, bucket: CapacityBucket, locations: Iterable[str]) -> None:
        """Mark a node of a bucket as no longer warm for these code locations."""
        for location in locations:
            nodes = bucket.warm[location]
            nodes.discard(node_id)
            if nodes.nodes:
                continue
            del bucket.warm[location]
            if (bucket_set := self.warm.get(location)) is not None:
                bucket_set.discard(bucket)
                if not len(bucket_set):
                    del self.warm[location]

    def count(self, total: Amounts, change: int) -> None:
        """Count a node with that total that joined (1) or left (-1)."""
        self.totals[total] = self.totals.get(total, 0) + change
        if not self.totals[total]:
            del self.totals[total]


NEVER_LOOKED_AT: Final = -1


class NodeMatcher:
    """Match of one run's requirements with node classes; each result is computed once and kept."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._views: dict[NodeClassIndex, Needs | str] = {}
        self._suitable: dict[str, list[NodeClassIndex]] = {}
        self._all_suitable: list[NodeClassIndex] = []
        self._seen = NEVER_LOOKED_AT
        self._generation = NEVER_LOOKED_AT

    def view(self, class_index: NodeClassIndex) -> Needs | str:
        """Return what the run takes of a node of the class, or the reason why none can ever take it."""
        view = self._views.get(class_index)
        if view is None:
            node_class = class_index.node_class
            view = static_reason(self.ask, node_class) or needs_on(self.ask.requirements, node_class)
            self._views[class_index] = view
        return view

    def needs(self, class_index: NodeClassIndex) -> Needs | None:
        """Return what the run takes of a node of the class, or None if none can ever take it."""
        view = self.view(class_index)
        return None if isinstance(view, str) else view

    def suitable(
        self, class_indexes: list[NodeClassIndex], generation: int, cluster: str | None
    ) -> list[NodeClassIndex]:
        """Return the classes whose nodes could take the run if large enough, in one cluster or in all.

        Args:
            class_indexes: All classes; new ones are appended.
            generation: Changes when classes are removed.
        """
        if generation != self._generation:
            self._views.clear()
            self._suitable.clear()
            self._all_suitable = []
            self._seen, self._generation = 0, generation
        while self._seen < len(class_indexes):
            class_index = class_indexes[self._seen]
            self._seen += 1
            if self.needs(class_index) is not None:
                self._all_suitable.append(class_index)
                self._suitable.setdefault(class_index.node_class.cluster, []).append(class_index)
        return self._all_suitable if cluster is None else self._suitable.get(cluster, [])


def lacks(class_index: NodeClassIndex, needs: Needs, amounts: Amounts) -> str | None:
    """Return the first resource of which the amounts are insufficient, or None."""
    if fits(needs, amounts):
        return None
    return next(
        class_index.node_class.offered[position] for position, amount in needs if amounts[position] < amount
    )
