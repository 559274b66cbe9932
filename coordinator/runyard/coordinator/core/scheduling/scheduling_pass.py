"""Whose turn it is: hands out lanes whose first run may find a node, in the order of the queue."""

import heapq
import itertools
from typing import Final, NamedTuple

from runyard.coordinator.core.scheduling.equivalence_classes import Lane, State, Ticket
from runyard.coordinator.core.scheduling.fair_shares import Band
from runyard.coordinator.core.scheduling.node_classes import Demand
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.run_queue import RunQueue

FEW: Final = 32
"""Freed nodes up to which each is held against what waits; after more at once, everything is tried anew."""


class Rank(NamedTuple):
    """The order of the queue; the smallest comes first.

    Attributes:
        content: The share has what it is promised.
        priority: Higher ones first, so negated.
        passed: How much the share was given, and `held`, how much it has now, in parts of the fleet.
    """

    content: bool
    priority: int
    passed: float
    held: float
    ticket: Ticket


def rank(queue: RunQueue, band: Band, lane: Lane, now: float) -> Rank:
    """The rank of the first run of a lane."""
    priority = band.priority_now(now, queue.policy.queue.age_step)
    share = band.share
    return Rank(not share.is_needy, -priority, share.passed, share.part_held, lane.head)


class Turns:
    """One pass over the queue.

    Every band has an entry in a heap; ranks only fall during a pass, so an entry that is out of date is found
    when it comes to the top, and put back.

    Attributes:
        hot: Freed nodes that a blocked run could take, by what it asks for.
    """

    def __init__(self, queue: RunQueue, index: NodeIndex, now: float) -> None:
        self.hot: dict[Demand, dict[str, None]] = {}
        self._queue = queue
        self._index = index
        self._now = now
        self._numbers = itertools.count()
        self._heap: list[tuple[Rank, int, Band]] = []
        self._positions: dict[Band, int] = {}
        queue.wake(now)
        self._begin()

    def next(self) -> Lane | None:
        """The lane whose first run comes next, or None if no run can find a node any more."""
        if self._index.has_freed:
            self._begin()
        while self._heap and (self.hot or self._queue.restless):
            known, _, band = heapq.heappop(self._heap)
            lane = self._first_open(band)
            if lane is None:
                continue
            now = rank(self._queue, band, lane, self._now)
            if now > known:
                self._enter(band, now)
            else:
                return lane
        return None

    def placed(self, band: Band, node_id: str) -> None:
        """Goes on after a run of the band got a node."""
        for demand in [each for each, nodes in self.hot.items() if node_id in nodes]:
            if demand not in self._queue.demands or self._index.fits(demand, node_id) is None:
                self._cool(demand, node_id)
        self._enter_again(band)

    def failed(self, band: Band) -> None:
        """Goes on after the lane that was handed out found no node."""
        self._positions[band] += 1
        self._enter_again(band)

    def _begin(self) -> None:
        freed = self._index.take_freed()
        if len(freed) > FEW:
            self._queue.wake_all()
            freed = []
        for node_id in freed:
            for demand in self._index.takers(self._queue.demands, node_id):
                self.hot.setdefault(demand, {})[node_id] = None
        self._heap.clear()
        self._positions.clear()
        bands = self._queue.bands_of(self.hot) if self.hot else {}
        for band in bands | self._queue.restless:
            self._positions[band] = 0 if band in bands else band.first_untried()
            self._enter_again(band)

    def _first_open(self, band: Band) -> Lane | None:
        position = self._positions[band]
        found = None
        while position < len(band) and found is None and (self.hot or band.untried):
            lane = band[position]
            if lane.state is State.UNTRIED or (lane.state is State.BLOCKED and lane.demand in self.hot):
                found = lane
            else:
                position += 1
        self._positions[band] = position
        return found

    def _enter_again(self, band: Band) -> None:
        position = self._positions[band]
        if position < len(band):
            self._enter(band, rank(self._queue, band, band[position], self._now))

    def _enter(self, band: Band, at: Rank) -> None:
        heapq.heappush(self._heap, (at, next(self._numbers), band))

    def _cool(self, demand: Demand, node_id: str) -> None:
        nodes = self.hot[demand]
        del nodes[node_id]
        if not nodes:
            del self.hot[demand]
