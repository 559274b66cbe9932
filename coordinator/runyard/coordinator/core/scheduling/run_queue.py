"""Queue of the runs that wait for a node: equivalence classes in priority levels in fair shares."""

import itertools
from collections.abc import Iterable, Iterator

from runyard.coordinator.core.model import Run
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.order import next_opening
from runyard.coordinator.core.scheduling.config import SchedulingConfig
from runyard.coordinator.core.scheduling.equivalence_classes import (
    OLDER_THAN_ALL,
    ClassState,
    EquivalenceClass,
    EquivalenceKey,
    QueueEntry,
)
from runyard.coordinator.core.scheduling.fair_shares import UNBOUNDED, FairShare, PriorityLevel
from runyard.coordinator.core.scheduling.node_classes import NodeMatcher
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.reservations import Reservation, Reservations
from runyard.coordinator.core.timers import Timers


class RunQueue:
    """Waiting runs by equivalence class; classes by share and priority.

    A class whose first run found no node is blocked: it is tried again only on nodes that were freed since,
    or when more clusters open to it. So a run that joins a blocked class costs no search.

    Attributes:
        dirty: Priority levels with classes that need a search over all nodes.
        matchers: Matchers of the classes, with their levels and the number of classes in each.
        starving: Blocked classes that have waited so long that a node should be reserved.
    """

    def __init__(self, index: NodeIndex, config: SchedulingConfig) -> None:
        self.config = config
        self.shares: dict[str, FairShare] = {}
        self.dirty: dict[PriorityLevel, None] = {}
        self.matchers: dict[NodeMatcher, dict[PriorityLevel, int]] = {}
        self.reservations = Reservations()
        self.starving: dict[EquivalenceClass, None] = {}
        self._index = index
        self._classes: dict[EquivalenceKey, EquivalenceClass] = {}
        self._class_of: dict[str, EquivalenceClass] = {}
        self._quota_freed: dict[FairShare, None] = {}
        self._youngest_placed = OLDER_THAN_ALL  # the youngest run that got a node
        self._usage_last_served = 0.0  # usage of the share that was served last, before that placement
        self._openings: Timers[EquivalenceClass] = Timers()
        self._starvation_timers: Timers[EquivalenceClass] = Timers()
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._class_of)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._class_of

    def class_of(self, run_id: str) -> EquivalenceClass:
        """Return the class of a waiting run."""
        return self._class_of[run_id]

    def run_ids(self) -> list[str]:
        """Return the IDs of all waiting runs, the oldest first."""
        return [entry.run_id for entry in sorted(self._entries())]

    def classes(self) -> Iterator[EquivalenceClass]:
        """Return all classes; none is empty."""
        return iter(self._classes.values())

    def level_of(self, run_class: EquivalenceClass) -> PriorityLevel:
        """Return the priority level of a class."""
        return self.shares[run_class.key.share].levels[run_class.key.priority]

    def levels(self) -> Iterator[PriorityLevel]:
        """Return all priority levels with classes."""
        return (level for share in self.shares.values() for level in share.levels.values() if len(level))

    def levels_with(self, matchers: Iterable[NodeMatcher]) -> dict[PriorityLevel, None]:
        """Return the levels with classes of these matchers."""
        return {level: None for matcher in matchers for level in self.matchers.get(matcher, ())}

    def waiting_in(self, share: str) -> int:
        """Return the number of waiting runs of a share."""
        return self.shares[share].waiting if share in self.shares else 0

    def dominant_share(self, amounts: Iterable[tuple[str, int]]) -> float:
        """Return the largest fraction of the fleet that the amounts are, over all resources (DRF)."""
        total = self._index.total
        return max((amount / total[name] for name, amount in amounts if total.get(name)), default=0.0)

    # Runs come and go

    def add(self, run: Run) -> None:
        """Add a run."""
        key = EquivalenceKey.of(run)
        run_class = self._classes.get(key) or self._new_class(key)
        share = self.shares[key.share]
        if not share.waiting:
            self._rejoin(share)
        share.waiting += 1
        entry = QueueEntry(run.queued_since, run.times.launched, next(self._numbers), run.run_id)
        self._class_of[run.run_id] = run_class
        run_class.add(entry)
        if run_class.head == entry:
            self.level_of(run_class).insert(run_class)
            if run_class.state is not ClassState.CLOSED:
                self.set_state(run_class, ClassState.UNTRIED)

    def remove(self, run_id: str) -> None:
        """Remove a run that got a node or is over."""
        run_class = self._class_of.pop(run_id)
        share = self.shares[run_class.key.share]
        share.waiting -= 1
        was_first = run_class.head.run_id == run_id
        run_class.discard(run_id)
        if not len(run_class):
            self._drop_class(run_class)
            self._drop_share_if_idle(share)
        elif was_first:
            self.level_of(run_class).insert(run_class)
            if run_class.state is ClassState.BLOCKED and run_class.key.route.spill_after > 0:
                # Other clusters are open to the next run, which has waited less.
                self.set_state(run_class, ClassState.UNTRIED)

    def allocate(self, share: str, taken: Resources) -> None:
        """Count what a live run holds against its share."""
        holder = self._share(share)
        holder.change(taken, 1)
        holder.dominant_share = self.dominant_share(holder.held.items())

    def release(self, share: str, taken: Resources) -> None:
        """Count what a run held as released."""
        holder = self._share(share)
        holder.change(taken, -1)
        holder.dominant_share = self.dominant_share(holder.held.items())
        if holder.over_quota:
            self._quota_freed[holder] = None
        self._drop_share_if_idle(holder)

    # States of classes

    def set_state(self, run_class: EquivalenceClass, state: ClassState) -> None:
        """Set the state of a class."""
        level = self.level_of(run_class)
        level.set_state(run_class, state)
        if level.untried:
            self.dirty[level] = None
        else:
            self.dirty.pop(level, None)
        if state is not ClassState.BLOCKED:
            self.starving.pop(run_class, None)
        if state is ClassState.OVER_QUOTA and (reservation := self.reservations.of(run_class)):
            self.end(reservation)

    def block(self, run_class: EquivalenceClass, now: float) -> None:
        """Mark a class as blocked: no node can take its first run."""
        self.set_state(run_class, ClassState.BLOCKED)
        since = run_class.head.queued_since
        opening = next_opening(run_class.key.route, now - since)
        if opening is not None:
            self._openings.set(run_class, since + opening)
        if run_class not in self.starving and self.reservations.of(run_class) is None:
            self._starvation_timers.set(run_class, self._starves_at(run_class))

    def wake(self, now: float) -> None:
        """Retry the classes to which more clusters have opened or whose share is below its quota again."""
        for run_class in self._openings.take_due(now):
            if run_class.state is ClassState.BLOCKED:
                self.set_state(run_class, ClassState.UNTRIED)
        while self._quota_freed:
            share, _ = self._quota_freed.popitem()
            for run_class in list(share.over_quota):
                if share.over_quota_reason(run_class.resources) is None:
                    self.set_state(run_class, ClassState.UNTRIED)

    def wake_all(self) -> None:
        """Retry every class on all nodes."""
        for run_class in self._classes.values():
            if run_class.state is not ClassState.CLOSED:
                self.set_state(run_class, ClassState.UNTRIED)

    def apply_config(self, config: SchedulingConfig) -> None:
        """Apply another configuration; all classes are retried."""
        self.config = config
        for share in self.shares.values():
            share.quota = config.quotas.get(share.name, UNBOUNDED)
        for reservation in self.reservations:
            self.end(reservation)
        self.starving.clear()
        self.wake_all()

    def record_placement(self, run_class: EquivalenceClass, taken: Resources, now: float) -> None:
        """Count a placement of a run of the class against its share."""
        share = self.shares[run_class.key.share]
        self._youngest_placed = max(self._youngest_placed, run_class.head)
        self._usage_last_served = share.usage
        share.last_cost = self.dominant_share(taken)
        share.usage += share.last_cost
        share.levels[run_class.key.priority].served = now
        run_class.placed_at = now
        run_class.failed_node = ""
        self.starving.pop(run_class, None)
        if reservation := self.reservations.of(run_class):
            self.end(reservation)

    # Reservations

    def find_starving(self, now: float) -> None:
        """Mark as starving the classes that have waited too long while younger runs got nodes."""
        patience = self.config.queue.reserve_after
        for run_class in self._starvation_timers.take_due(now):
            if run_class.state is not ClassState.BLOCKED or self.reservations.of(run_class):
                continue
            if (until := self._starves_at(run_class)) > now:
                self._starvation_timers.set(run_class, until)
            elif self._youngest_placed < run_class.head:
                self._starvation_timers.set(run_class, now + patience / 4)
            else:
                self.starving[run_class] = None

    def reserve(self, reservation: Reservation) -> None:
        """Reserve a node for a class."""
        self.reservations.make(reservation)
        self.starving.pop(reservation.run_class, None)

    def postpone_reservation(self, run_class: EquivalenceClass, until: float) -> None:
        """Reserve no node for the class until then."""
        self.starving.pop(run_class, None)
        self._starvation_timers.set(run_class, until)

    def end(self, reservation: Reservation) -> None:
        """End a reservation; the class may get another."""
        self.reservations.end(reservation)
        run_class = reservation.run_class
        run_class.failed_node = reservation.node_id
        if len(run_class) and run_class.state is ClassState.BLOCKED:
            self.starving[run_class] = None
        self._index.mark_freed(reservation.node_id)

    # Bookkeeping

    def _starves_at(self, run_class: EquivalenceClass) -> float:
        return max(run_class.head.queued_since, run_class.placed_at) + self.config.queue.reserve_after

    def _rejoin(self, share: FairShare) -> None:
        """Let a share that becomes active again start level with the others.

        Idle time earns no credit; of its earlier usage, only the last placement counts.
        """
        others = (each.usage for each in self.shares.values() if each.waiting)
        start = min(others, default=self._usage_last_served)
        start = min(start, self._usage_last_served)
        share.usage = start + min(max(share.usage - start, 0.0), share.last_cost)

    def _share(self, name: str) -> FairShare:
        share = self.shares.get(name)
        if share is None:
            share = self.shares[name] = FairShare(name, self.config.quotas.get(name, UNBOUNDED))
        return share

    def _drop_share_if_idle(self, share: FairShare) -> None:
        if not share.waiting and not share.live:
            self.shares.pop(share.name, None)
            self._quota_freed.pop(share, None)

    def _new_class(self, key: EquivalenceKey) -> EquivalenceClass:
        run_class = self._classes[key] = EquivalenceClass(key, self._index.matcher(key.ask))
        share = self._share(key.share)
        level = share.levels.get(key.priority)
        if level is None:
            level = share.levels[key.priority] = PriorityLevel(share, key.priority)
        in_levels = self.matchers.setdefault(run_class.matcher, {})
        in_levels[level] = in_levels.get(level, 0) + 1
        return run_class

    def _drop_class(self, run_class: EquivalenceClass) -> None:
        self.set_state(run_class, ClassState.CLOSED)
        self.level_of(run_class).remove_class(run_class)
        del self._classes[run_class.key]
        self._openings.cancel(run_class)
        self._starvation_timers.cancel(run_class)
        if reservation := self.reservations.of(run_class):
            self.end(reservation)
        level, in_levels = self.level_of(run_class), self.matchers[run_class.matcher]
        in_levels[level] -= 1
        if not in_levels[level]:
            del in_levels[level]
        if not in_levels:
            del self.matchers[run_class.matcher]

    def _entries(self) -> Iterator[QueueEntry]:
        return (entry for run_class in self._classes.values() for entry in run_class.entries())
