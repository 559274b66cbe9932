"""What the passing of time brings: silent nodes, late runs, old records."""

from dataclasses import dataclass

from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.launching import end, place_waiting
from runyard.coordinator.core.leases import expire
from runyard.coordinator.core.model import Assigned, Finished, Instant, Queued, Run, Starting, StopRequest
from runyard.v1 import run_pb2


@dataclass(frozen=True)
class Retention:
    """How long finished runs are kept once their outcome is settled.

    Attributes:
        seconds: Age after which a settled run is forgotten.
        unsettled_seconds: Age after which a run is forgotten though no reporter ever settled it.
        count: How many finished and settled runs are kept at most.
        tombstone_seconds: For how long a stop waits for the launch that it is to prevent.
    """

    seconds: float = 7 * 86400.0
    unsettled_seconds: float = 30 * 86400.0
    count: int = 20_000
    tombstone_seconds: float = 3600.0


_TIMED = (Queued, Assigned, Starting)
"""The phases in which a run can be late."""


def on_tick(fleet: Fleet, now: Instant) -> None:
    """Looks at every deadline. Called about once a second; a late call only delays a verdict."""
    _expire_leases(fleet, now)
    pending = [run for run in fleet.runs.values() if run.stop is None and type(run.phase) in _TIMED]
    for run in pending:
        if late := _lateness(run, now):
            end(fleet, now, run, StopRequest(late, run_pb2.OUTCOME_KIND_TIMED_OUT))
    place_waiting(fleet, now)


def _expire_leases(fleet: Fleet, now: Instant) -> None:
    lease = fleet.lease(now)
    for node in list(fleet.nodes.values()):
        if expired := expire(node, lease, now):
            fleet.end_session(node, f"nothing heard for {lease:g} s")
            fleet.put_node(expired)


def _lateness(run: Run, now: Instant) -> str | None:
    policies = run.launch.policies
    queued = now.monotonic - run.queued_since
    placed = now.monotonic - run.since
    match run.phase:
        case Queued() if policies.max_queue_time is not None and queued >= policies.max_queue_time:
            return f"no node could take the run within {policies.max_queue_time:g} s (max_queue_time)"
        case Assigned() | Starting() if (
            policies.start_timeout is not None and placed >= policies.start_timeout
        ):
            return f"the worker did not start within {policies.start_timeout:g} s (start_timeout)"
        case _:
            return None


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
