"""Event: the status of one attempt -> the phase of its run, an acknowledgement or a stop."""

from dataclasses import replace

from runyard.common.defaults import GRACE_SECONDS
from runyard.coordinator.core.agent_reports import AttemptStatus
from runyard.coordinator.core.events.agent_messages import acknowledge, stop, stop_stale
from runyard.coordinator.core.events.attempt_end import finish, never_began, reschedule
from runyard.coordinator.core.events.on_launch import end
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import (
    Assigned,
    Finished,
    Instant,
    Launch,
    Node,
    Phase,
    Place,
    Run,
    Running,
    Starting,
    Stopping,
    StopRequest,
    Times,
)
from runyard.coordinator.core.requirements.requirements import TimeLimits
from runyard.coordinator.core.transitions import ALLOWED, correct
from runyard.v1 import run_pb2


def apply_status(fleet: Fleet, now: Instant, node: Node, status: AttemptStatus) -> None:
    """Apply the status of one attempt: a change, a repeat, or an attempt that must not exist."""
    run = fleet.runs.get(status.run_id)
    if run is None or (status.attempt > run.attempt and not _is_live_on_another_node(fleet, now, run, node)):
        # Only this coordinator numbers attempts, so its store is older than the agent's memory.
        _adopt(fleet, now, node, status)
    elif status.attempt == run.attempt and run.place is not None and run.place.node == node.node_id:
        _apply(fleet, now, run, run.place, status)
    elif status.phase == run_pb2.PHASE_FINISHED:
        acknowledge(fleet, node.node_id, status.run_id, status.attempt)
    else:
        stop_stale(fleet, node.node_id, status.run_id, status.attempt)


def _is_live_on_another_node(fleet: Fleet, now: Instant, run: Run, node: Node) -> bool:
    """True if another node has the run: then no agent may claim it by naming a higher attempt.

    After a restart the store may be an older one than the agents know, and that node may say otherwise.
    """
    return (
        run.is_live and run.place is not None and run.place.node != node.node_id and not fleet.recovering(now)
    )


def _apply(fleet: Fleet, now: Instant, run: Run, place: Place, status: AttemptStatus) -> None:
    if status.phase == run_pb2.PHASE_FINISHED:
        _end(fleet, now, run, status)
    elif isinstance(run.phase, Finished):
        # Presumed over, yet alive: the outcome stands, so the worker is stopped.
        stop(fleet, run)
    else:
        phase = _phase(place, status)
        if phase is not None and type(phase) in ALLOWED[type(run.phase)]:
            _note_progress(fleet, fleet.move(run, phase, now, _event(phase)), status.progress)
        elif isinstance(run.phase, Starting) and isinstance(phase, Starting):
            _note_progress(fleet, run, status.progress)
        elif isinstance(run.phase, Stopping) and status.pid and not run.phase.pid:
            fleet.put(replace(run, phase=replace(run.phase, pid=status.pid)), f"worker has pid {status.pid}")


def _note_progress(fleet: Fleet, run: Run, progress: str) -> None:
    """Record the progress of a starting worker once; heartbeats repeat it."""
    if isinstance(run.phase, Starting) and progress and fleet.progress.get(run.run_id) != progress:
        fleet.progress[run.run_id] = progress
        fleet.put(run, progress)


def _phase(place: Place, status: AttemptStatus) -> Phase | None:
    match status.phase:
        case run_pb2.PHASE_STARTING:
            return Starting(place)
        case run_pb2.PHASE_RUNNING:
            return Running(place, status.pid)
        case run_pb2.PHASE_STOPPING:
            return Stopping(place, status.pid)
        case _:
            return None


def _event(phase: Phase) -> str:
    match phase:
        case Running(pid=pid):
            return f"worker runs with pid {pid}"
        case Stopping():
            return "the agent stops the worker"
        case _:
            return "taken by the agent"


def _end(fleet: Fleet, now: Instant, run: Run, status: AttemptStatus) -> None:
    if not isinstance(run.phase, Finished):
        if isinstance(run.phase, Assigned | Starting) and status.pid:
            run = fleet.move(
                run, Running(run.phase.place, status.pid), now, f"worker ran with pid {status.pid}"
            )
        if never_began(run, status.outcome):
            reschedule(fleet, now, run, "could not start it", status.outcome)
        else:
            finish(fleet, now, run, status.outcome)
    elif corrected := correct(run, status.outcome):
        fleet.put(corrected, f"corrected: {status.outcome.message}")
    assert run.place is not None
    acknowledge(fleet, run.place.node, run.run_id, run.attempt)


def _adopt(fleet: Fleet, now: Instant, node: Node, status: AttemptStatus) -> None:
    """Adopt an attempt that only the agent knows."""
    place = Place(node.node_id, node.cluster)
    phase: Phase
    if status.phase == run_pb2.PHASE_FINISHED:
        phase = Finished(status.outcome, place)
    else:
        phase = _phase(place, status) or Starting(place)
    buried = fleet.tombstones.get(status.run_id) if status.run_id not in fleet.runs else None
    run = Run(
        _launch_of(status),
        status.attempt,
        phase,
        Times(launched=now.wall),
        queued_since=now.monotonic,
        since=now.monotonic,
    )
    fleet.put(run, f"adopted from node {node.node_id}")
    if isinstance(phase, Finished):
        acknowledge(fleet, node.node_id, status.run_id, status.attempt)
    elif buried is not None:
        # The run was stopped before this coordinator knew it.
        end(fleet, now, run, StopRequest(buried.reason, run_pb2.OUTCOME_KIND_STOPPED))


def _launch_of(status: AttemptStatus) -> Launch:
    return Launch(
        run_id=status.run_id,
        resume_number=status.resume_number,
        deployment=status.deployment,
        job=status.job,
        location=status.location,
        requirements=status.requirements,
        time_limits=TimeLimits(grace=GRACE_SECONDS),
        digest="",
        spec=run_pb2.LaunchSpec(run_id=status.run_id, resume_number=status.resume_number),
    )
