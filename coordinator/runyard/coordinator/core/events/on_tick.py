"""Event: time passes -> silent nodes, missed deadlines, old records."""

from dataclasses import dataclass

from runyard.coordinator.core.events.attempt_end import finish
from runyard.coordinator.core.events.on_launch import end
from runyard.coordinator.core.events.place_waiting import place_waiting
from runyard.coordinator.core.explain.wording import deadline_message
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.leases import gone_after, hear, is_storm, silent
from runyard.coordinator.core.model import Draining, Finished, Instant, StopRequest
from runyard.coordinator.core.scheduling.backfill import expire, reserve
from runyard.v1 import run_pb2


@dataclass(frozen=True)
class Retention:
    """Retention of finished runs, counted from when their outcome is settled.

    Attributes:
        seconds: Age after which a settled run is forgotten.
        unsettled_seconds: Age after which a run that no reporter settled is forgotten.
        count: Limit on finished and settled runs.
        tombstone_seconds: Time for which a stop prevents a later launch.
    """

    seconds: float = 7 * 86400.0
    unsettled_seconds: float = 30 * 86400.0
    count: int = 20_000
    tombstone_seconds: float = 3600.0


FREEZE = 5.0
"""Seconds between two ticks from which on it is the coordinator that was away, not the nodes."""


def on_tick(fleet: Fleet, now: Instant) -> None:
    """Event: about one second has passed -> leases, drains, deadlines and reservations are checked."""
    _mistrust_own_absence(fleet, now)
    _expire_leases(fleet, now)
    if is_storm(fleet.nodes.values(), fleet.lease(now)):
        fleet.hold_verdicts(now)
    _give_up_self_fenced(fleet, now)
    _end_drains(fleet, now)
    for run_id in fleet.deadlines.take_due(now.monotonic):
        run = fleet.runs[run_id]
        late = deadline_message(fleet, run)
        end(fleet, now, run, StopRequest(late, run_pb2.OUTCOME_KIND_TIMED_OUT))
    expire(fleet.queue, now.monotonic)
    place_waiting(fleet, now)
    reserve(fleet.queue, fleet.index, now.monotonic)


def _mistrust_own_absence(fleet: Fleet, now: Instant) -> None:
    """After a freeze (SIGSTOP, a suspended machine) every node gets a lease of its own to be heard again."""
    if now.monotonic - fleet.last_tick > FREEZE:
        fleet.hold_verdicts(now)
        for node in list(fleet.nodes.values()):
            fleet.put_node(hear(node, now))
    fleet.last_tick = now.monotonic


def _expire_leases(fleet: Fleet, now: Instant) -> None:
    lease = fleet.lease(now)
    for node in list(fleet.nodes.values()):
        if quieter := silent(node, lease, fleet.leases.lost_after, now):
            fleet.end_session(node, f"nothing heard for {lease:g} s")
            fleet.put_node(quieter)


def _give_up_self_fenced(fleet: Fleet, now: Instant) -> None:
    """Ends runs whose node has certainly stopped them by itself, as their disconnect policy demands."""
    for node_id in list(fleet.nodes):
        silence = fleet.silence(node_id, now)
        for run in fleet.live_on(node_id) if silence else ():
            limit = gone_after(run.launch.time_limits)
            if limit is not None and silence >= limit:
                message = f"node {node_id} was silent for {silence:.0f} s; its stop_after has passed"
                kind = run_pb2.OUTCOME_KIND_NODE_LOST
                outcome = run_pb2.Outcome(kind=kind, message=message, cause="lease_expired")
                finish(fleet, now, run, outcome)


def _end_drains(fleet: Fleet, now: Instant) -> None:
    for node in fleet.nodes.values():
        match node.service:
            case Draining(deadline=float(deadline), since=since) if now.monotonic >= since + deadline:
                reason = f"node {node.node_id} is drained; its deadline of {deadline:g} s has passed"
                for run in fleet.live_on(node.node_id):
                    if run.stop is None:
                        end(fleet, now, run, StopRequest(reason, run_pb2.OUTCOME_KIND_STOPPED))
            case _:
                pass


def forget_old(fleet: Fleet, now: Instant, retention: Retention) -> None:
    """Forgets finished runs by age and count, and old tombstones. Called about once a minute."""
    for run_id, tombstone in list(fleet.tombstones.items()):
        if now.wall - tombstone.at > retention.tombstone_seconds:
            del fleet.tombstones[run_id]
    finished = [run for run in fleet.runs.values() if isinstance(run.phase, Finished)]
    finished.sort(key=lambda run: run.times.finished or 0.0)
    surplus = len(finished) - retention.count
    for index, run in enumerate(finished):
        age = now.wall - (run.times.finished or now.wall)
        limit = retention.seconds if run.reported else retention.unsettled_seconds
        if age > limit or (index < surplus and run.reported):
            fleet.drop(run.run_id)
