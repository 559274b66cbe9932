"""Backfill: reserve nodes for runs that starve while smaller ones pass them."""

import itertools
from collections.abc import Iterator
from typing import Final

from runyard.coordinator.core.scheduling.equivalence_classes import EquivalenceClass
from runyard.coordinator.core.scheduling.filters import FREE, FULL
from runyard.coordinator.core.scheduling.node_index import IndexedNode, NodeIndex
from runyard.coordinator.core.scheduling.reservations import Reservation
from runyard.coordinator.core.scheduling.run_queue import RunQueue
from runyard.coordinator.core.scheduling.scheduling_pass import rank
from runyard.coordinator.core.scheduling.scores import Needs, fits

MAX_RESERVATION_CANDIDATES: Final = 256
"""Limit on the nodes among which the one to reserve is chosen."""


def expire(queue: RunQueue, now: float) -> None:
    """End reservations whose time is over; another node may be better."""
    for reservation in queue.reservations:
        if now >= reservation.until:
            queue.end(reservation)


def reserve(queue: RunQueue, index: NodeIndex, now: float) -> None:
    """Reserve nodes for the starving classes that come first in the queue."""
    queue.find_starving(now)
    while queue.starving and queue.reservations.may_add:
        run_class = min(queue.starving, key=lambda each: rank(queue, queue.level_of(each), each, now))
        node_id = _candidate(queue, index, run_class)
        if node_id is None:
            queue.postpone_reservation(run_class, now + queue.config.queue.reserve_after)
            continue
        above = queue.level_of(run_class).priority_now(now, queue.config.queue.age_step)
        until = now + queue.config.queue.reservation
        queue.reserve(Reservation(node_id, run_class, above, until))


def recheck(queue: RunQueue, index: NodeIndex, node_id: str) -> None:
    """End the reservation of a node that can no longer take the run."""
    reservation = queue.reservations.on(node_id)
    known = index.node(node_id)
    if reservation is not None and (known is None or _needs(reservation.run_class, known) is None):
        queue.end(reservation)


def _candidate(queue: RunQueue, index: NodeIndex, run_class: EquivalenceClass) -> str | None:
    """Return the node that lacks least of what the run needs."""
    chosen: tuple[bool, float, str] | None = None
    for known in itertools.islice(_in_reach(queue, index, run_class), MAX_RESERVATION_CANDIDATES):
        needs = _needs(run_class, known)
        assert needs is not None
        node_id = known.node.node_id
        deficit = max((amount - known.free[at]) / known.total[at] for at, amount in needs)
        chosen = min(chosen or (True, float("inf"), ""), (node_id == run_class.failed_node, deficit, node_id))
    return chosen[2] if chosen else None


def _in_reach(queue: RunQueue, index: NodeIndex, run_class: EquivalenceClass) -> Iterator[IndexedNode]:
    """Yield the nodes that could take the run when empty; those with free slots come first."""
    for node_id in _large_enough(index, run_class):
        known = index.node(node_id)
        if (
            node_id not in run_class.key.refused
            and queue.reservations.on(node_id) is None
            and known is not None
        ):
            yield known


def _large_enough(index: NodeIndex, run_class: EquivalenceClass) -> Iterator[str]:
    named = run_class.key.ask.requirements.node
    if named:
        known = index.node(named)
        yield from [named] if known is not None and _needs(run_class, known) is not None else []
        return
    clusters = run_class.open_clusters()
    for class_index in index.suitable(run_class.matcher):
        if clusters is not None and class_index.node_class.cluster not in clusters:
            continue
        needs = run_class.matcher.needs(class_index)
        assert needs is not None
        for bucket in sorted(class_index.buckets.values(), key=lambda bucket: bucket.reason != FREE):
            if bucket.reason in (FREE, FULL) and fits(needs, bucket.total):
                yield from bucket.nodes


def _needs(run_class: EquivalenceClass, known: IndexedNode) -> Needs | None:
    """Return what the run takes of the node, if that is in service and large enough."""
    if known.bucket.reason not in (FREE, FULL):
        return None
    needs = run_class.matcher.needs(known.class_index)
    return needs if needs is not None and fits(needs, known.total) else None
