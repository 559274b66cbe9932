"""End of an attempt: the run is over, or is rescheduled because its worker never began."""

from dataclasses import replace

from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.launch_admission import current_launch
from runyard.coordinator.core.model import Assigned, Finished, Instant, Queued, Run, Starting
from runyard.coordinator.core.scheduling.filters import Ask
from runyard.v1 import run_pb2


def finish(fleet: Fleet, now: Instant, run: Run, outcome: run_pb2.Outcome) -> None:
    """Record the end of an attempt; one caused by a stop request gets the outcome of the request."""
    if run.stop is not None and outcome.kind == run_pb2.OUTCOME_KIND_STOPPED:
        named = run_pb2.Outcome()
        named.CopyFrom(outcome)
        named.kind, named.message = run.stop.outcome, run.stop.reason
        outcome = named
    fleet.move(run, Finished(outcome, run.place, run.pid), now, outcome.message)


def never_began(run: Run, outcome: run_pb2.Outcome) -> bool:
    """True if the outcome proves that the node never began the attempt, and the run may still start.

    Args:
        run: State before the report.
        outcome: As reported. Agents report START_FAILED only for workers that never began.
    """
    return (
        outcome.kind == run_pb2.OUTCOME_KIND_START_FAILED
        and isinstance(run.phase, Assigned | Starting)
        and run.stop is None
        and bool(run.launch.digest)  # the spec of an adopted run is lost
    )


def reschedule(fleet: Fleet, now: Instant, run: Run, did: str, outcome: run_pb2.Outcome) -> None:
    """Put a run that its node provably never began back into the queue, as its next attempt.

    If no other node could take it, or the maximum number of nodes was tried, the run is over.

    Args:
        run: Assigned or starting.
        did: Action of the node, in words.
        outcome: Outcome of the run if this was the only node; its message says why the worker did not begin.
    """
    assert run.place is not None
    refused_by = (*run.refused_by, (run.place.node, outcome.message))
    # The rules may have changed since it was assigned.
    run = replace(run, refused_by=refused_by, launch=current_launch(fleet, run))
    matcher = fleet.index.matcher(Ask.of(run.launch))
    if not fleet.index.could_ever(matcher, without=dict(refused_by)):
        finish(fleet, now, run, _of_all(run, outcome, "no other node could take the run"))
    elif len(refused_by) >= fleet.config.max_placement_attempts:
        finish(fleet, now, run, _of_all(run, outcome, "no more are tried (max_placement_attempts)"))
    else:
        # The time on the node does not count as waiting.
        run = replace(run, queued_since=run.queued_since + now.monotonic - run.since)
        fleet.move(run, Queued(), now, f"node {run.refused_by[-1][0]} {did}: {outcome.message}")


def _of_all(run: Run, outcome: run_pb2.Outcome, why_over: str) -> run_pb2.Outcome:
    """Return the last outcome, with the reasons of all nodes if several were tried."""
    if len(run.refused_by) == 1:
        return outcome
    reasons = "; ".join(f"{node_id}: {why}" for node_id, why in run.refused_by)
    of_all = run_pb2.Outcome()
    of_all.CopyFrom(outcome)
    of_all.message = f"{len(run.refused_by)} nodes did not start the run ({reasons}), and {why_over}"
    return of_all
