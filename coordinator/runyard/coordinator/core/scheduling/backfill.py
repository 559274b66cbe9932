"""Reserves nodes for runs that have waited long while smaller ones passed them."""

import itertools
from collections.abc import Iterator
from typing import Final

from runyard.coordinator.core.scheduling.equivalence_classes import Lane
from runyard.coordinator.core.scheduling.filters import FREE, FULL
from runyard.coordinator.core.scheduling.node_index import NodeIndex, Placeable
from runyard.coordinator.core.scheduling.reservations import Reservation
from runyard.coordinator.core.scheduling.run_queue import RunQueue
from runyard.coordinator.core.scheduling.scheduling_pass import rank
from runyard.coordinator.core.scheduling.scores import Needs, fits

LOOKED_AT: Final = 256
"""Nodes among which the one to reserve is chosen, at most."""


def expire(queue: RunQueue, now: float) -> None:
    """Ends reservations that were of no use in their time; another node may be better."""
    for reservation in queue.reservations:
        if now >= reservation.until:
            queue.end(reservation)


def reserve(queue: RunQueue, index: NodeIndex, now: float) -> None:
    """Reserves nodes for those lanes that come first in the queue and have waited for too long."""
    queue.grow_hungry(now)
    while queue.hungry and queue.reservations.has_room:
        lane = min(queue.hungry, key=lambda each: rank(queue, queue.band_of(each), each, now))
        node_id = _candidate(queue, index, lane)
        if node_id is None:
            queue.be_patient(lane, now + queue.policy.queue.reserve_after)
            continue
        above = queue.band_of(lane).priority_now(now, queue.policy.queue.age_step)
        until = now + queue.policy.queue.reservation
        queue.reserve(Reservation(node_id, lane, above, until))


def recheck(queue: RunQueue, index: NodeIndex, node_id: str) -> None:
    """Ends the reservation of a node that is not what it was."""
    reservation = queue.reservations.on(node_id)
    known = index.node(node_id)
    if reservation is not None and (known is None or _needs(reservation.lane, known) is None):
        queue.end(reservation)


def _candidate(queue: RunQueue, index: NodeIndex, lane: Lane) -> str | None:
    """The node that lacks least of what the run needs."""
    chosen: tuple[bool, float, str] | None = None
    for known in itertools.islice(_in_reach(queue, index, lane), LOOKED_AT):
        needs = _needs(lane, known)
        assert needs is not None
        node_id = known.node.node_id
        deficit = max((amount - known.free[at]) / known.total[at] for at, amount in needs)
        chosen = min(chosen or (True, float("inf"), ""), (node_id == lane.passed_over, deficit, node_id))
    return chosen[2] if chosen else None


def _in_reach(queue: RunQueue, index: NodeIndex, lane: Lane) -> Iterator[Placeable]:
    """The nodes that could take the run if only they were emptier; those that take anything come first."""
    for node_id in _large_enough(index, lane):
        known = index.node(node_id)
        if node_id not in lane.shape.refused and queue.reservations.on(node_id) is None and known is not None:
            yield known


def _large_enough(index: NodeIndex, lane: Lane) -> Iterator[str]:
    named = lane.shape.ask.requirements.node
    if named:
        known = index.node(named)
        yield from [named] if known is not None and _needs(lane, known) is not None else []
        return
    clusters = lane.open_clusters()
    for kind in index.suitable(lane.demand):
        if clusters is not None and kind.site.cluster not in clusters:
            continue
        needs = lane.demand.needs(kind)
        assert needs is not None
        for cell in sorted(kind.cells.values(), key=lambda cell: cell.reason != FREE):
            if cell.reason in (FREE, FULL) and fits(needs, cell.total):
                yield from cell.nodes


def _needs(lane: Lane, known: Placeable) -> Needs | None:
    """What the run takes of the node, if that is in service and large enough."""
    if known.cell.reason not in (FREE, FULL):
        return None
    needs = lane.demand.needs(known.kind)
    return needs if needs is not None and fits(needs, known.total) else None
