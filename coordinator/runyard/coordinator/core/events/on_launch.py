"""What clients ask: launch a run, end a run, settle its outcome."""

from collections.abc import Iterable
from dataclasses import replace

from runyard.coordinator.core.client_scope import require_own
from runyard.coordinator.core.errors import LaunchConflict, LaunchRefused, QueueFull
from runyard.coordinator.core.events.agent_messages import stop
from runyard.coordinator.core.events.place_waiting import place_waiting
from runyard.coordinator.core.events.resolve_launch import resolved
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import (
    Finished,
    Instant,
    Launch,
    Queued,
    Run,
    Stopping,
    StopRequest,
    Times,
    Tombstone,
)
from runyard.coordinator.core.scheduling.config import NoNodeAction
from runyard.coordinator.core.scheduling.filters import Ask
from runyard.coordinator.core.scheduling.reasons import what_is_missing
from runyard.v1 import run_pb2

NODE_FAILURES = frozenset(
    {
        run_pb2.OUTCOME_KIND_NODE_LOST,
        run_pb2.OUTCOME_KIND_START_FAILED,
        run_pb2.OUTCOME_KIND_EXIT_UNKNOWN,
    }
)
"""Outcomes after which another node is the better choice for the next attempt."""

MAX_AVOIDED = 16
"""Nodes that a run avoids at most."""


def on_launch(fleet: Fleet, now: Instant, launch: Launch) -> Run:
    """Takes a launch, or recognises the repeat of one.

    Returns:
        The run as it is after the call.

    Raises:
        LaunchConflict: The same key was launched with another content.
        LaunchRefused: An earlier attempt is live, the key is superseded, or no node could ever take the run.
        NotAllowed: The client is bound, and neither the run nor its clusters are among what it may use.
        QueueFull: As many runs wait as may.
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


def queued_run(known: Run | None, launch: Launch, now: Instant) -> Run:
    """The run as it enters the queue; `known` is what was known of it before."""
    return Run(
        launch=launch,
        attempt=0 if known is None else known.attempt + 1,
        phase=Queued(),
        times=Times(launched=now.wall),
        queued_since=now.monotonic,
        since=now.monotonic,
        avoided=() if known is None else _avoided(known),
    )


def _avoided(known: Run) -> tuple[str, ...]:
    """The nodes that failed earlier attempts, the latest last."""
    if not isinstance(known.phase, Finished) or known.place is None:
        return known.avoided
    if known.phase.outcome.kind not in NODE_FAILURES:
        return known.avoided
    others = [node_id for node_id in known.avoided if node_id != known.place.node]
    return (*others, known.place.node)[-MAX_AVOIDED:]


def require_acceptable(fleet: Fleet, launch: Launch) -> None:
    """Raises `LaunchRefused` if no node could ever take the run, `QueueFull` if as many runs wait as may."""
    _require_possible(fleet, launch)
    _require_room(fleet, launch.share)


def _require_possible(fleet: Fleet, launch: Launch) -> None:
    if fleet.config.on_no_eligible_node is NoNodeAction.QUEUE or launch.route.closed:
        return
    if missing := what_is_missing(fleet.index, Ask.of(launch)):
        raise LaunchRefused(missing)


def _require_room(fleet: Fleet, share: str) -> None:
    limits = fleet.config.queue
    for whose, waiting, limit, name in (
        ("runs", len(fleet.queue), limits.limit, "limit"),
        (f"runs of {share}", fleet.queue.waiting_in(share), limits.limit_per_share, "limit_per_share"),
    ):
        if waiting >= limit:
            raise QueueFull(
                f"{waiting} {whose} are waiting, as many as the queue takes ({name} {limit}); "
                f"launch again when some have been placed, or raise queue.{name} in the routing file"
            )


def require_bearable(fleet: Fleet, launch: Launch) -> None:
    """Raises `LaunchRefused` if a node that is merely between two heartbeats would stop the run."""
    lease = fleet.leases.lease(len(fleet.nodes))
    stop_after = launch.time_limits.stop_after
    if stop_after is not None and stop_after < lease:
        raise LaunchRefused(
            f"policies.stop_after is {stop_after:g} s, shorter than a node's lease in this fleet "
            f"({lease:g} s); make it longer"
        )


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
    """Ends a run, wherever it is in its life.

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
    """Has a run stopped: at once if it is still in the queue, through its agent otherwise."""
    run = replace(run, stop=request)
    if isinstance(run.phase, Queued):
        outcome = run_pb2.Outcome(kind=request.outcome, message=request.reason)
        fleet.move(run, Finished(outcome, None), now, request.reason)
        return
    if isinstance(run.phase, Stopping):
        # Its agent stops it already, for reasons that were lost with the store.
        run = fleet.put(run, request.reason)
    else:
        assert run.place is not None
        run = fleet.move(run, Stopping(run.place, run.pid), now, request.reason)
    stop(fleet, run)


def on_reports_settled(fleet: Fleet, keys: Iterable[tuple[str, int]]) -> None:
    """Notes which outcomes are settled in Dagster."""
    for run_id, attempt in keys:
        run = fleet.runs.get(run_id)
        if run is None or run.attempt != attempt or run.reported:
            continue
        if isinstance(run.phase, Finished):
            fleet.put(replace(run, reported=True), "outcome settled in Dagster")


def unsettled(fleet: Fleet, deployment: str) -> list[Run]:
    """The finished runs of a deployment that its reporter has not settled, oldest first."""
    return [
        run
        for run in fleet.runs.values()
        if isinstance(run.phase, Finished) and not run.reported and run.launch.deployment == deployment
    ]
