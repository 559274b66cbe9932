"""Events of clients: launch a run, end a run, settle its outcome."""

from collections.abc import Iterable
from dataclasses import replace

from runyard.coordinator.core.client_scope import require_own
from runyard.coordinator.core.errors import LaunchConflict, LaunchRefused
from runyard.coordinator.core.events.agent_messages import stop
from runyard.coordinator.core.events.place_waiting import place_waiting
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.launch_admission import queued_run, require_acceptable, require_bearable
from runyard.coordinator.core.model import (
    Finished,
    Instant,
    Launch,
    Queued,
    Run,
    Stopping,
    StopRequest,
    Tombstone,
)
from runyard.coordinator.core.resolve_launch import resolved
from runyard.v1 import run_pb2


def on_launch(fleet: Fleet, now: Instant, launch: Launch) -> Run:
    """Event: a client launches a run -> the run is queued and, if a node can take it, assigned.

    Returns:
        The run after the call; for a repeated launch, the known run.

    Raises:
        LaunchConflict: The same key was launched with other content.
        LaunchRefused: An earlier attempt is live, the key is superseded, or no node could ever take the run.
        NotAllowed: The client is bound, and neither the run nor its clusters are among what it may use.
        QueueFull: The queue is at its limit.
    """
    known = fleet.runs.get(launch.run_id)
    if known is not None:
        require_own(known, launch, fleet.config.client_clusters.get(launch.launched_by))
    if known is not None and known.launch.resume_number == launch.resume_number:
        return _repeated(known, launch)
    if known is not None:
        _require_superseding(known, launch)
    launch = resolved(launch, fleet.config)
    require_bearable(fleet, launch)
    buried = fleet.tombstones.get(launch.run_id) if known is None else None
    if buried is None:
        require_acceptable(fleet, launch)
    run = fleet.put(queued_run(known, launch, now), "launched")
    if buried is not None:
        outcome = run_pb2.Outcome(
            kind=run_pb2.OUTCOME_KIND_STOPPED, message=f"stopped before launch: {buried.reason}"
        )
        return fleet.move(run, Finished(outcome, None), now, outcome.message)
    place_waiting(fleet, now)
    return fleet.runs[launch.run_id]


def _repeated(known: Run, launch: Launch) -> Run:
    # A run adopted from its agent has no digest: its launch was lost with the store.
    if known.launch.digest not in ("", launch.digest):
        raise LaunchConflict(
            f"run {launch.run_id} (resume {launch.resume_number}) was launched before with other content "
            f"(digest {known.launch.digest[:12]}, now {launch.digest[:12]}); a launch cannot be changed"
        )
    return known


def _require_superseding(known: Run, launch: Launch) -> None:
    if launch.resume_number < known.launch.resume_number:
        raise LaunchRefused(
            f"run {launch.run_id} is already at resume {known.launch.resume_number}; "
            f"resume {launch.resume_number} is superseded"
        )
    if not isinstance(known.phase, Finished):
        where = f"on node {known.place.node}" if known.place else "in the queue"
        raise LaunchRefused(
            f"attempt {known.attempt} of run {launch.run_id} is still live {where}; "
            "stop it first, or wait until it is proven over"
        )


def on_terminate(fleet: Fleet, now: Instant, run_id: str, reason: str) -> bool:
    """Event: a client ends a run -> the run is over, or its node is requested to stop it.

    Returns:
        True if there was something to end; False if the run is over or was never seen.
    """
    run = fleet.runs.get(run_id)
    if run is None:
        if run_id not in fleet.tombstones:
            fleet.bury(run_id, Tombstone(reason, now.wall))
        return False
    if isinstance(run.phase, Finished):
        return False
    if run.stop is None:
        end(fleet, now, run, StopRequest(reason, run_pb2.OUTCOME_KIND_STOPPED))
        place_waiting(fleet, now)
    return True


def end(fleet: Fleet, now: Instant, run: Run, request: StopRequest) -> None:
    """Stop a run: at once if it is in the queue, through its agent otherwise."""
    run = replace(run, stop=request)
    if isinstance(run.phase, Queued):
        outcome = run_pb2.Outcome(kind=request.outcome, message=request.reason)
        fleet.move(run, Finished(outcome, None), now, request.reason)
        return
    if isinstance(run.phase, Stopping):
        # Its agent stops it already; the reason was lost with the store.
        run = fleet.put(run, request.reason)
    else:
        assert run.place is not None
        run = fleet.move(run, Stopping(run.place, run.pid), now, request.reason)
    stop(fleet, run)


def on_reports_settled(fleet: Fleet, keys: Iterable[tuple[str, int]]) -> None:
    """Event: the reporter settled outcomes in Dagster -> they are not reported again."""
    for run_id, attempt in keys:
        run = fleet.runs.get(run_id)
        if run is None or run.attempt != attempt or run.reported:
            continue
        if isinstance(run.phase, Finished):
            fleet.put(replace(run, reported=True), "outcome settled in Dagster")


def unsettled(fleet: Fleet, deployment: str) -> list[Run]:
    """Return the finished runs of a deployment that its reporter has not settled, oldest first."""
    return [
        run
        for run in fleet.runs.values()
        if isinstance(run.phase, Finished) and not run.reported and run.launch.deployment == deployment
    ]
