"""Forecast of the order in which waiting runs are placed, if each finds a node."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from runyard.coordinator.core.scheduling.equivalence_classes import EquivalenceClass, QueueEntry
from runyard.coordinator.core.scheduling.fair_shares import FairShare, PriorityLevel
from runyard.coordinator.core.scheduling.run_queue import RunQueue
from runyard.coordinator.core.scheduling.scheduling_pass import Rank


@dataclass
class _ForecastShare:
    """Forecast state of a fair share."""

    share: FairShare
    usage: float
    dominant_share: float
    held: dict[str, int] = field(default_factory=dict)

    @property
    def is_satisfied(self) -> bool:
        return all(self.held.get(name, 0) >= least for name, least in self.share.quota.guaranteed)


@dataclass
class _ForecastLevel:
    """Remaining entries of a priority level."""

    share: _ForecastShare
    priority: int
    raised: int
    entries: list[tuple[QueueEntry, EquivalenceClass]]

    @property
    def rank(self) -> Rank:
        entry, _ = self.entries[-1]
        share = self.share
        return Rank(share.is_satisfied, -self.raised, share.usage, share.dominant_share, entry)


def forecast_order(queue: RunQueue, now: float) -> Iterator[str]:
    """Yield the IDs of all waiting runs, the next one first."""
    accounts = {
        share.name: _ForecastShare(share, share.usage, share.dominant_share, dict(share.held))
        for share in queue.shares.values()
    }
    levels = [_forecast_level(queue, level, accounts[level.share.name], now) for level in queue.levels()]
    heap = [(level.rank, number, level) for number, level in enumerate(levels)]
    heapq.heapify(heap)
    while heap:
        known, number, level = heapq.heappop(heap)
        if (rank := level.rank) > known:
            heapq.heappush(heap, (rank, number, level))
            continue
        entry, run_class = level.entries.pop()
        yield entry.run_id
        taken = run_class.resources
        level.share.usage += queue.dominant_share(taken)
        for name, amount in taken:
            level.share.held[name] = level.share.held.get(name, 0) + amount
        level.share.dominant_share = queue.dominant_share(level.share.held.items())
        level.raised = level.priority
        if level.entries:
            heapq.heappush(heap, (level.rank, number, level))


def _forecast_level(
    queue: RunQueue, level: PriorityLevel, share: _ForecastShare, now: float
) -> _ForecastLevel:
    classes = [level[position] for position in range(len(level))]
    entries = sorted(
        ((entry, run_class) for run_class in classes for entry in run_class.entries()), reverse=True
    )
    return _ForecastLevel(
        share, level.priority, level.priority_now(now, queue.config.queue.age_step), entries
    )
