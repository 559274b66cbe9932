"""In which order waiting runs would be placed, if each of them found a node."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from runyard.coordinator.core.scheduling.equivalence_classes import Lane, Ticket
from runyard.coordinator.core.scheduling.fair_shares import Band, Share
from runyard.coordinator.core.scheduling.run_queue import RunQueue
from runyard.coordinator.core.scheduling.scheduling_pass import Rank


@dataclass
class _Account:
    """What a share will have been given."""

    share: Share
    passed: float
    part_held: float
    held: dict[str, int] = field(default_factory=dict)

    @property
    def is_content(self) -> bool:
        return all(self.held.get(name, 0) >= least for name, least in self.share.quota.least)


@dataclass
class _Line:
    """What will be left of a band."""

    account: _Account
    priority: int
    raised: int
    tickets: list[tuple[Ticket, Lane]]

    @property
    def rank(self) -> Rank:
        ticket, _ = self.tickets[-1]
        account = self.account
        return Rank(account.is_content, -self.raised, account.passed, account.part_held, ticket)


def in_order(queue: RunQueue, now: float) -> Iterator[str]:
    """The IDs of all waiting runs, the next one first."""
    accounts = {
        share.name: _Account(share, share.passed, share.part_held, dict(share.held))
        for share in queue.shares.values()
    }
    lines = [_line(queue, band, accounts[band.share.name], now) for band in queue.bands()]
    heap = [(line.rank, number, line) for number, line in enumerate(lines)]
    heapq.heapify(heap)
    while heap:
        known, number, line = heapq.heappop(heap)
        if (rank := line.rank) > known:
            heapq.heappush(heap, (rank, number, line))
            continue
        ticket, lane = line.tickets.pop()
        yield ticket.run_id
        taken = lane.shape.ask.requirements.resources
        line.account.passed += queue.part_of_fleet(taken)
        for name, amount in taken:
            line.account.held[name] = line.account.held.get(name, 0) + amount
        line.account.part_held = queue.part_of_fleet(line.account.held.items())
        line.raised = line.priority
        if line.tickets:
            heapq.heappush(heap, (line.rank, number, line))


def _line(queue: RunQueue, band: Band, account: _Account, now: float) -> _Line:
    lanes = [band[position] for position in range(len(band))]
    tickets = sorted(((ticket, lane) for lane in lanes for ticket in lane.tickets()), reverse=True)
    return _Line(account, band.priority, band.priority_now(now, queue.policy.queue.age_step), tickets)
