"""The one place where a run changes its phase."""

from dataclasses import replace

from runyard.coordinator.core.model import (
    Assigned,
    Finished,
    Instant,
    Phase,
    Queued,
    Run,
    Running,
    Starting,
    Stopping,
)
from runyard.v1 import run_pb2

ALLOWED: dict[type[Phase], frozenset[type[Phase]]] = {
    Queued: frozenset({Assigned, Finished}),
    Assigned: frozenset({Queued, Starting, Running, Stopping, Finished}),
    Starting: frozenset({Queued, Running, Stopping, Finished}),
    Running: frozenset({Stopping, Finished}),
    Stopping: frozenset({Finished}),
    Finished: frozenset(),
}
"""From each phase, the phases that may follow. Reports are level-triggered, so a phase may be skipped."""

PRESUMED = frozenset({run_pb2.OUTCOME_KIND_NODE_LOST, run_pb2.OUTCOME_KIND_EXIT_UNKNOWN})
"""Outcomes that a real result may still correct, because the end was not observed."""


class ForbiddenTransition(Exception):
    """A run was to enter a phase that may not follow its present one. Always a bug in Runyard."""


def advance(run: Run, phase: Phase, now: Instant) -> Run:
    """Return the run in its next phase.

    Raises:
        ForbiddenTransition: `phase` may not follow the run's present phase.
    """
    if type(phase) not in ALLOWED[type(run.phase)]:
        raise ForbiddenTransition(f"{run.run_id}/{run.attempt}: {run.phase} -> {phase}")
    times = run.times
    since = now.monotonic
    match phase:
        case Assigned():
            times = replace(times, assigned=now.wall)
        case Starting():
            since = run.since
        case Running():
            times = replace(times, running=now.wall)
        case Finished():
            times = replace(times, finished=now.wall)
            run = replace(run, launch=run.launch.without_secrets())
        case Queued():
            # The node refused it, or its worker never began: the next is another attempt.
            run = replace(run, attempt=run.attempt + 1)
    return replace(run, phase=phase, times=times, since=since)


def correct(run: Run, outcome: run_pb2.Outcome) -> Run | None:
    """Return the finished run with the observed outcome, or None if there is nothing to correct."""
    if not isinstance(run.phase, Finished) or run.phase.outcome.kind not in PRESUMED:
        return None
    if outcome.kind in PRESUMED:
        return None
    return replace(run, phase=replace(run.phase, outcome=outcome))


def deadline(run: Run) -> float | None:
    """Return the monotonic time at which the present phase of the run times out; None: never."""
    if run.stop is not None:
        return None
    limits = run.launch.time_limits
    match run.phase:
        case Queued() if limits.max_queue_time is not None:
            return run.queued_since + limits.max_queue_time
        case Assigned() | Starting() if limits.start_timeout is not None:
            return run.since + limits.start_timeout
        case _:
            return None
