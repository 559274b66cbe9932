"""One pass over the queue: yields the classes whose first run may find a node, in queue order."""

import heapq
import itertools
from typing import Final, NamedTuple

from runyard.coordinator.core.scheduling.equivalence_classes import ClassState, EquivalenceClass, QueueEntry
from runyard.coordinator.core.scheduling.fair_shares import PriorityLevel
from runyard.coordinator.core.scheduling.node_classes import NodeMatcher
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.run_queue import RunQueue

MAX_FREED_TRIED: Final = 32
"""Up to this many freed nodes are matched with the waiting classes; after more, all are retried."""


class Rank(NamedTuple):
    """Sort key of the queue; the smallest comes first.

    Attributes:
        satisfied: The share holds what it is guaranteed.
        priority: Higher ones first, so negated.
        usage: Sum of the dominant shares of the placements of the share.
        held: Dominant share that it holds now.
    """

    satisfied: bool
    priority: int
    usage: float
    held: float
    entry: QueueEntry


def rank(queue: RunQueue, level: PriorityLevel, run_class: EquivalenceClass, now: float) -> Rank:
    """Return the rank of the first run of a class."""
    priority = level.priority_now(now, queue.config.queue.age_step)
    share = level.share
    return Rank(not share.is_below_guarantee, -priority, share.usage, share.dominant_share, run_class.head)


class SchedulingPass:
    """One pass over the queue.

    Each priority level has an entry in a heap. Ranks only fall during a pass, so an outdated entry is noticed
    when it reaches the top, and is reinserted.

    Attributes:
        freed: Freed nodes that a blocked run could take, by matcher.
    """

    def __init__(self, queue: RunQueue, index: NodeIndex, now: float) -> None:
        self.freed: dict[NodeMatcher, dict[str, None]] = {}
        self._queue = queue
        self._index = index
        self._now = now
        self._numbers = itertools.count()
        self._heap: list[tuple[Rank, int, PriorityLevel]] = []
        self._positions: dict[PriorityLevel, int] = {}
        queue.wake(now)
        self._begin()

    def next(self) -> EquivalenceClass | None:
        """Return the class whose first run is tried next, or None if no more run can find a node."""
        if self._index.has_freed:
            self._begin()
        while self._heap and (self.freed or self._queue.dirty):
            known, _, level = heapq.heappop(self._heap)
            run_class = self._first_open(level)
            if run_class is None:
                continue
            now = rank(self._queue, level, run_class, self._now)
            if now > known:
                self._enter(level, now)
            else:
                return run_class
        return None

    def placed(self, level: PriorityLevel, node_id: str) -> None:
        """Continue after a run of the level got a node."""
        for matcher in [each for each, nodes in self.freed.items() if node_id in nodes]:
            if matcher not in self._queue.matchers or self._index.fits(matcher, node_id) is None:
                self._drop_freed(matcher, node_id)
        self._enter_again(level)

    def failed(self, level: PriorityLevel) -> None:
        """Continue after the class that was returned found no node."""
        self._positions[level] += 1
        self._enter_again(level)

    def _begin(self) -> None:
        freed = self._index.take_freed()
        if len(freed) > MAX_FREED_TRIED:
            self._queue.wake_all()
            freed = []
        for node_id in freed:
            for matcher in self._index.takers(self._queue.matchers, node_id):
                self.freed.setdefault(matcher, {})[node_id] = None
        self._heap.clear()
        self._positions.clear()
        levels = self._queue.levels_with(self.freed) if self.freed else {}
        for level in levels | self._queue.dirty:
            self._positions[level] = 0 if level in levels else level.first_untried()
            self._enter_again(level)

    def _first_open(self, level: PriorityLevel) -> EquivalenceClass | None:
        position = self._positions[level]
        found = None
        while position < len(level) and found is None and (self.freed or level.untried):
            run_class = level[position]
            if run_class.state is ClassState.UNTRIED or (
                run_class.state is ClassState.BLOCKED and run_class.matcher in self.freed
            ):
                found = run_class
            else:
                position += 1
        self._positions[level] = position
        return found

    def _enter_again(self, level: PriorityLevel) -> None:
        position = self._positions[level]
        if position < len(level):
            self._enter(level, rank(self._queue, level, level[position], self._now))

    def _enter(self, level: PriorityLevel, at: Rank) -> None:
        heapq.heappush(self._heap, (at, next(self._numbers), level))

    def _drop_freed(self, matcher: NodeMatcher, node_id: str) -> None:
        nodes = self.freed[matcher]
        del nodes[node_id]
        if not nodes:
            del self.freed[matcher]
