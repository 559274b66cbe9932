"""All that bears on where a run goes, gathered for people. Changes nothing."""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.explain.queue_forecast import in_order
from runyard.coordinator.core.explain.wording import show_seconds
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Instant, Run
from runyard.coordinator.core.routing.order import cluster_order, next_opening, open_count
from runyard.coordinator.core.scheduling.equivalence_classes import Lane, Shape, Ticket
from runyard.coordinator.core.scheduling.fair_shares import UNBOUNDED, Share
from runyard.coordinator.core.scheduling.filters import FREE, FULL, HELD, NOT_OPEN_YET, PRESSURE
from runyard.coordinator.core.scheduling.node_classes import Cell, Kind
from runyard.coordinator.core.scheduling.reasons import count_reasons, lasting_reasons
from runyard.coordinator.core.scheduling.scores import (
    Option,
    Seeker,
    fits,
    marks,
    needs_there,
    worth,
    worth_of_site,
)

BEST: Final = 10
"""How many nodes are shown."""


@dataclass(frozen=True)
class ClusterStand:
    """A cluster of the run's route.

    Attributes:
        closed: Why it is not open to the run; empty: it is.
        utilization: Share in use of its scarcest resource, 0 to 1.
        nodes_ready: Nodes in service.
    """

    name: str
    closed: str
    utilization: float
    nodes_ready: int


@dataclass(frozen=True)
class RatedNode:
    """A node that can take the run.

    Attributes:
        total: Weighted sum of the marks.
        marks: From 0 to 1, by the name of the score.
    """

    node_id: str
    cluster: str
    total: float
    marks: dict[str, float]


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        clusters: Those of the route, in the order in which they are tried; empty: any will do.
        reasons: Why nodes cannot take the run, with how many, the most frequent first.
        free: How many nodes can take it now, of which `nodes` are the best.
        position: In the queue, from 1; 0 if the run is not in it.
        length: How many runs wait.
        waits_for: What must happen before the run is placed; empty: nothing.
        effective_priority: The priority, and what waiting has made of it.
    """

    clusters: tuple[ClusterStand, ...]
    reasons: tuple[tuple[str, int], ...]
    free: int
    nodes: tuple[RatedNode, ...]
    position: int
    length: int
    waits_for: str
    priority: int
    effective_priority: int
    share: str


def examine(fleet: Fleet, run: Run, now: Instant) -> Examination:
    """Looks at everything that a placement of the run would look at.

    Args:
        fleet: Where it would go.
        run: One in the queue, or one that is only thought of and in phase Queued.
        now: The moment.
    """
    lane = _alone(fleet, run, now.monotonic)
    seeker = Seeker(run.run_id, run.launch.requirements, run.launch.location, run.avoided)
    held = fleet.queue.reservations.kept_from(_real(fleet, run) or lane)
    counts = count_reasons(
        fleet.index, lane.demand, clusters=lane.open_clusters(), refused=lane.shape.refused, held=held
    )
    reasons = sorted(((why, count) for why, count in counts.items() if why != FREE), key=_most_frequent)
    return Examination(
        clusters=tuple(_clusters(fleet, lane, now.monotonic)),
        reasons=tuple(reasons),
        free=counts[FREE],
        nodes=tuple(_best_nodes(fleet, lane, seeker, {*held, *lane.shape.refused})),
        position=_position(fleet, run, now.monotonic),
        length=len(fleet.queue),
        waits_for=_waits_for(fleet, run, lane, counts, now.monotonic),
        priority=run.launch.priority,
        effective_priority=_priority_now(fleet, run, now.monotonic),
        share=run.launch.share,
    )


def _alone(fleet: Fleet, run: Run, now: float) -> Lane:
    """A lane with this run and no other."""
    shape = Shape.of(run)
    lane = Lane(shape, fleet.index.demand(shape.ask))
    lane.add(Ticket(run.queued_since, run.times.launched, 0, run.run_id))
    lane.opened = lane.count_open(now)
    return lane


def _real(fleet: Fleet, run: Run) -> Lane | None:
    return fleet.queue.lane_of(run.run_id) if run.run_id in fleet.queue else None


def _most_frequent(counted: tuple[str, int]) -> tuple[int, str]:
    reason, count = counted
    return -count, reason


def _priority_now(fleet: Fleet, run: Run, now: float) -> int:
    lane = _real(fleet, run)
    if lane is None:
        return run.launch.priority
    return fleet.queue.band_of(lane).priority_now(now, fleet.policy.queue.age_step)


def _position(fleet: Fleet, run: Run, now: float) -> int:
    if run.run_id not in fleet.queue:
        return 0
    order = in_order(fleet.queue, now)
    return next(place for place, run_id in enumerate(order, start=1) if run_id == run.run_id)


# Clusters


def _in_trial_order(fleet: Fleet, lane: Lane) -> list[str]:
    """The clusters as the run tries them: those that are open, then the others as they will open."""
    names = lane.shape.clusters
    loads = {name: tally.load for name, tally in fleet.index.tallies(names)}
    tried = cluster_order(lane.shape.route, lane.head.run_id, loads)
    opened = names[: lane.opened]
    return [*(name for name in tried if name in opened), *names[lane.opened :]]


def _clusters(fleet: Fleet, lane: Lane, now: float) -> Iterator[ClusterStand]:
    tallies = dict(fleet.index.tallies(lane.shape.clusters))
    opens = _openings(lane)
    waited = now - lane.head.queued_since
    for name in _in_trial_order(fleet, lane):
        tally = tallies.get(name)
        closed = f"opens in {show_seconds(opens[name] - waited)}" if opens[name] > waited else ""
        if tally is None:
            yield ClusterStand(name, closed or "no node has joined it", 0.0, 0)
        else:
            yield ClusterStand(name, closed, tally.load.utilization, tally.nodes)


def _openings(lane: Lane) -> dict[str, float]:
    """After how many seconds of waiting each cluster opens."""
    route, names = lane.shape.route, lane.shape.clusters
    opens = dict.fromkeys(names[: open_count(route, 0.0)], 0.0)
    waited = next_opening(route, 0.0)
    while waited is not None:
        for name in names[: open_count(route, waited)]:
            opens.setdefault(name, waited)
        waited = next_opening(route, waited)
    return opens


# Nodes


def _best_nodes(fleet: Fleet, lane: Lane, seeker: Seeker, excluded: set[str]) -> list[RatedNode]:
    strategy = fleet.policy.strategy
    clusters = _in_trial_order(fleet, lane)[: lane.opened]
    rated = []
    for kind, cell in _best_cells(fleet, lane, seeker, clusters):
        needs = needs_there(seeker.requirements, kind.site)
        of_site = worth_of_site(seeker, kind.site)
        warm = cell.warm[seeker.location].nodes if seeker.location in cell.warm else {}
        suitable = [(each in seeker.avoided, each not in warm, each) for each in cell.nodes]
        eligible = (each for each in suitable if each[2] not in excluded)
        for _, is_cold, node_id in heapq.nsmallest(BEST, eligible):
            option = Option(node_id, kind.site, cell.total, cell.free, needs, not is_cold)
            total = worth(seeker, option, strategy, of_site)
            rated.append(RatedNode(node_id, kind.site.cluster, total, marks(seeker, option, strategy)))
    return heapq.nsmallest(
        BEST, rated, key=lambda each: (_place(each.cluster, clusters), -each.total, each.node_id)
    )


def _best_cells(fleet: Fleet, lane: Lane, seeker: Seeker, clusters: list[str]) -> list[tuple[Kind, Cell]]:
    """Groups of equal nodes, enough of them to hold the best nodes."""
    named = seeker.requirements.node
    found: list[tuple[int, float, int, Kind, Cell]] = []
    for kind in fleet.index.suitable(lane.demand):
        if clusters and kind.site.cluster not in clusters:
            continue
        needs, of_site = needs_there(seeker.requirements, kind.site), worth_of_site(seeker, kind.site)
        for cell in kind.open:
            if fits(needs, cell.free) and (not named or named in cell.nodes):
                is_warm = seeker.location in cell.warm
                option = Option("", kind.site, cell.total, cell.free, needs, is_warm)
                total = worth(seeker, option, fleet.policy.strategy, of_site)
                found.append((_place(kind.site.cluster, clusters), -total, len(found), kind, cell))
    spoilt = len(seeker.avoided) + len(lane.shape.refused)
    return [(kind, cell) for *_, kind, cell in heapq.nsmallest(BEST + spoilt, found)]


def _place(cluster: str, clusters: list[str]) -> int:
    return clusters.index(cluster) if clusters else 0


# What it waits for


def _waits_for(fleet: Fleet, run: Run, lane: Lane, counts: Counter[str], now: float) -> str:
    if closed := lane.shape.route.closed:
        return closed
    queue = fleet.queue
    share = queue.shares.get(run.launch.share) or Share(
        run.launch.share, fleet.policy.quotas.get(run.launch.share, UNBOUNDED)
    )
    if quota := share.over_quota(run.launch.requirements.resources):
        return quota
    if counts[FREE]:
        return ""
    real = _real(fleet, run)
    reservation = queue.reservations.of(real) if real else None
    if reservation is not None:
        return f"room on node {reservation.node_id}, which is reserved for it, or on another"
    lasting = lasting_reasons(fleet.index, lane.demand)
    passing = Counter({why: count for why, count in counts.items() if why not in lasting})
    return " or ".join(_hopes(fleet, lane, passing, now)) or "a node that could take it"


def _hopes(fleet: Fleet, lane: Lane, counts: Counter[str], now: float) -> Iterator[str]:
    silent = sum(counts.pop(why, 0) for why in ("suspect", "unreachable", "lost"))
    closed = sum(counts.pop(why, 0) for why in ("draining", "cordoned"))
    pressed = {why: counts.pop(why) for why in list(counts) if why.endswith(PRESSURE)}
    held = counts.pop(HELD, 0)
    later = counts.pop(NOT_OPEN_YET, 0)
    for why, count in sorted(counts.items(), key=_most_frequent):
        if why == FULL:
            yield f"a slot on {_of(count)}"
        elif why in fleet.index.total:
            yield f"{why} on {_of(count)}"
    if later:
        stand = next(stand for stand in _clusters(fleet, lane, now) if stand.closed.startswith("opens"))
        yield f"cluster {stand.name}, which {stand.closed}"
    if silent:
        yield f"{_of(silent)} to come back"
    if closed:
        yield f"{_of(closed)} to be uncordoned"
    for why, count in sorted(pressed.items()):
        yield f"{_of(count)} to be without {why}"
    if held:
        yield f"{_of(held)} that larger runs have reserved"


def _of(count: int) -> str:
    return "one node" if count == 1 else f"one of {count} nodes"
