"""Examination of everything that decides where a run goes. Changes nothing."""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.explain.queue_forecast import forecast_order
from runyard.coordinator.core.explain.wording import show_seconds
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Instant, Run
from runyard.coordinator.core.routing.order import cluster_order, next_opening, open_count
from runyard.coordinator.core.scheduling.equivalence_classes import (
    EquivalenceClass,
    EquivalenceKey,
    QueueEntry,
)
from runyard.coordinator.core.scheduling.fair_shares import UNBOUNDED, FairShare
from runyard.coordinator.core.scheduling.filters import FREE, FULL, HELD, INSUFFICIENT, NOT_OPEN_YET, PRESSURE
from runyard.coordinator.core.scheduling.node_classes import CapacityBucket, NodeClassIndex
from runyard.coordinator.core.scheduling.reasons import count_reasons, static_reasons
from runyard.coordinator.core.scheduling.scores import (
    Candidate,
    ScoringContext,
    class_score,
    fits,
    needs_on,
    score,
    scores,
)

BEST: Final = 10
"""Number of nodes that are shown."""


@dataclass(frozen=True)
class ClusterState:
    """State of a cluster of the run's route.

    Attributes:
        closed: Why it is not open to the run; empty if it is.
        utilization: Share in use of its scarcest resource, 0 to 1.
        nodes_ready: Nodes in service.
    """

    name: str
    closed: str
    utilization: float
    nodes_ready: int


@dataclass(frozen=True)
class ScoredNode:
    """Node that can take the run, with its scores.

    Attributes:
        total: Weighted sum of the scores.
        scores: From 0 to 1, by the name of the score.
    """

    node_id: str
    cluster: str
    total: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Examination:
    """Result of an examination.

    Attributes:
        clusters: Clusters of the route, in the order in which they are tried; empty: any.
        reasons: Reasons why nodes cannot take the run, with counts, the most frequent first.
        free: Number of nodes that can take it now; `nodes` are the best of them.
        position: In the queue, from 1; 0 if the run is not in it.
        length: Number of waiting runs.
        waits_for: Event that the run needs to be placed; empty if none.
        effective_priority: The priority, raised by waiting.
    """

    clusters: tuple[ClusterState, ...]
    reasons: tuple[tuple[str, int], ...]
    free: int
    nodes: tuple[ScoredNode, ...]
    position: int
    length: int
    waits_for: str
    priority: int
    effective_priority: int
    share: str


def examine(fleet: Fleet, run: Run, now: Instant) -> Examination:
    """Examine everything that decides the placement of the run.

    Args:
        fleet: The fleet that would take it.
        run: A waiting run, or a hypothetical one in phase Queued.
        now: Time of the examination.
    """
    run_class = _alone(fleet, run, now.monotonic)
    context = ScoringContext(run.run_id, run.launch.requirements, run.launch.location, run.avoided)
    held = fleet.queue.reservations.reserved_for_others(_real(fleet, run) or run_class)
    counts = count_reasons(
        fleet.index,
        run_class.matcher,
        clusters=run_class.open_clusters(),
        refused=run_class.key.refused,
        held=held,
    )
    reasons = sorted(((why, count) for why, count in counts.items() if why != FREE), key=_most_frequent)
    return Examination(
        clusters=tuple(_clusters(fleet, run_class, now.monotonic)),
        reasons=tuple(reasons),
        free=counts[FREE],
        nodes=tuple(_best_nodes(fleet, run_class, context, {*held, *run_class.key.refused})),
        position=_position(fleet, run, now.monotonic),
        length=len(fleet.queue),
        waits_for=_waits_for(fleet, run, run_class, counts, now.monotonic),
        priority=run.launch.priority,
        effective_priority=_priority_now(fleet, run, now.monotonic),
        share=run.launch.share,
    )


def _alone(fleet: Fleet, run: Run, now: float) -> EquivalenceClass:
    """Return a class with this run alone."""
    key = EquivalenceKey.of(run)
    run_class = EquivalenceClass(key, fleet.index.matcher(key.ask))
    run_class.add(QueueEntry(run.queued_since, run.times.launched, 0, run.run_id))
    run_class.opened = run_class.count_open(now)
    return run_class


def _real(fleet: Fleet, run: Run) -> EquivalenceClass | None:
    return fleet.queue.class_of(run.run_id) if run.run_id in fleet.queue else None


def _most_frequent(counted: tuple[str, int]) -> tuple[int, str]:
    reason, count = counted
    return -count, reason


def _priority_now(fleet: Fleet, run: Run, now: float) -> int:
    run_class = _real(fleet, run)
    if run_class is None:
        return run.launch.priority
    return fleet.queue.level_of(run_class).priority_now(now, fleet.config.queue.age_step)


def _position(fleet: Fleet, run: Run, now: float) -> int:
    if run.run_id not in fleet.queue:
        return 0
    order = forecast_order(fleet.queue, now)
    return next(place for place, run_id in enumerate(order, start=1) if run_id == run.run_id)


# Clusters


def _in_trial_order(fleet: Fleet, run_class: EquivalenceClass) -> list[str]:
    """Return the clusters in the order of trial: the open ones, then the others as they open."""
    names = run_class.key.clusters
    loads = {name: tally.load for name, tally in fleet.index.tallies(names)}
    tried = cluster_order(run_class.key.route, run_class.head.run_id, loads)
    opened = names[: run_class.opened]
    return [*(name for name in tried if name in opened), *names[run_class.opened :]]


def _clusters(fleet: Fleet, run_class: EquivalenceClass, now: float) -> Iterator[ClusterState]:
    tallies = dict(fleet.index.tallies(run_class.key.clusters))
    opens = _openings(run_class)
    waited = now - run_class.head.queued_since
    for name in _in_trial_order(fleet, run_class):
        tally = tallies.get(name)
        closed = f"opens in {show_seconds(opens[name] - waited)}" if opens[name] > waited else ""
        if tally is None:
            yield ClusterState(name, closed or "no node has joined it", 0.0, 0)
        else:
            yield ClusterState(name, closed, tally.load.utilization, tally.nodes)


def _openings(run_class: EquivalenceClass) -> dict[str, float]:
    """Return the seconds of waiting after which each cluster opens."""
    route, names = run_class.key.route, run_class.key.clusters
    opens = dict.fromkeys(names[: open_count(route, 0.0)], 0.0)
    waited = next_opening(route, 0.0)
    while waited is not None:
        for name in names[: open_count(route, waited)]:
            opens.setdefault(name, waited)
        waited = next_opening(route, waited)
    return opens


# Nodes


def _best_nodes(
    fleet: Fleet, run_class: EquivalenceClass, context: ScoringContext, excluded: set[str]
) -> list[ScoredNode]:
    strategy = fleet.config.strategy
    clusters = _in_trial_order(fleet, run_class)[: run_class.opened]
    scored = []
    for class_index, bucket in _best_buckets(fleet, run_class, context, clusters):
        needs = needs_on(context.requirements, class_index.node_class)
        of_class = class_score(context, class_index.node_class)
        warm = bucket.warm[context.location].nodes if context.location in bucket.warm else {}
        suitable = [(each in context.avoided, each not in warm, each) for each in bucket.nodes]
        eligible = (each for each in suitable if each[2] not in excluded)
        for _, is_cold, node_id in heapq.nsmallest(BEST, eligible):
            candidate = Candidate(
                node_id, class_index.node_class, bucket.total, bucket.free, needs, not is_cold
            )
            total = score(context, candidate, strategy, of_class)
            scored.append(
                ScoredNode(
                    node_id, class_index.node_class.cluster, total, scores(context, candidate, strategy)
                )
            )
    return heapq.nsmallest(
        BEST, scored, key=lambda each: (_place(each.cluster, clusters), -each.total, each.node_id)
    )


def _best_buckets(
    fleet: Fleet, run_class: EquivalenceClass, context: ScoringContext, clusters: list[str]
) -> list[tuple[NodeClassIndex, CapacityBucket]]:
    """Return enough buckets to hold the best nodes."""
    named = context.requirements.node
    found: list[tuple[int, float, int, NodeClassIndex, CapacityBucket]] = []
    for class_index in fleet.index.suitable(run_class.matcher):
        if clusters and class_index.node_class.cluster not in clusters:
            continue
        needs, of_class = (
            needs_on(context.requirements, class_index.node_class),
            class_score(context, class_index.node_class),
        )
        for bucket in class_index.open:
            if fits(needs, bucket.free) and (not named or named in bucket.nodes):
                is_warm = context.location in bucket.warm
                candidate = Candidate("", class_index.node_class, bucket.total, bucket.free, needs, is_warm)
                total = score(context, candidate, fleet.config.strategy, of_class)
                found.append(
                    (
                        _place(class_index.node_class.cluster, clusters),
                        -total,
                        len(found),
                        class_index,
                        bucket,
                    )
                )
    spoilt = len(context.avoided) + len(run_class.key.refused)
    return [(class_index, bucket) for *_, class_index, bucket in heapq.nsmallest(BEST + spoilt, found)]


def _place(cluster: str, clusters: list[str]) -> int:
    return clusters.index(cluster) if clusters else 0


# Reasons for waiting


def _waits_for(fleet: Fleet, run: Run, run_class: EquivalenceClass, counts: Counter[str], now: float) -> str:
    if closed := run_class.key.route.closed:
        return closed
    queue = fleet.queue
    share = queue.shares.get(run.launch.share) or FairShare(
        run.launch.share, fleet.config.quotas.get(run.launch.share, UNBOUNDED)
    )
    if quota := share.over_quota_reason(run.launch.requirements.resources):
        return quota
    if counts[FREE]:
        return ""
    real = _real(fleet, run)
    reservation = queue.reservations.of(real) if real else None
    if reservation is not None:
        return f"room on node {reservation.node_id}, which is reserved for it, or on another"
    lasting = static_reasons(fleet.index, run_class.matcher)
    passing = Counter({why: count for why, count in counts.items() if why not in lasting})
    return " or ".join(_hopes(fleet, run_class, passing, now)) or "a node that could take it"


def _hopes(fleet: Fleet, run_class: EquivalenceClass, counts: Counter[str], now: float) -> Iterator[str]:
    silent = sum(counts.pop(why, 0) for why in ("suspect", "unreachable", "lost"))
    closed = sum(counts.pop(why, 0) for why in ("draining", "cordoned"))
    pressed = {why: counts.pop(why) for why in list(counts) if why.endswith(PRESSURE)}
    held = counts.pop(HELD, 0)
    later = counts.pop(NOT_OPEN_YET, 0)
    for why, count in sorted(counts.items(), key=_most_frequent):
        if why == FULL:
            yield f"a slot on {_of(count)}"
        elif why.startswith(INSUFFICIENT):
            yield f"{why.removeprefix(INSUFFICIENT)} on {_of(count)}"
    if later:
        stand = next(stand for stand in _clusters(fleet, run_class, now) if stand.closed.startswith("opens"))
        yield f"cluster {stand.name}, which {stand.closed}"
    if silent:
        yield f"{_of(silent)} to come back"
    if closed:
        yield f"{_of(closed)} to be uncordoned"
    for why, count in sorted(pressed.items()):
        yield f"{_of(count)} to be no longer {why}"
    if held:
        yield f"{_of(held)} that larger runs have reserved"


def _of(count: int) -> str:
    return "one node" if count == 1 else f"one of {count} nodes"
