"""From what a run directory holds to the words of the agent's core."""

from runyard.agent.core.model import (
    UNKNOWN_LAUNCH,
    Accepted,
    AttemptKey,
    AttemptPhase,
    Finished,
    HeldAttempt,
    Outcome,
    OutcomeKind,
    Running,
    Starting,
    Stopping,
)
from runyard.agent.drivers.observed_state import (
    Ended,
    ObservedState,
    Orphaned,
    Untouched,
    Watched,
    inspect,
)
from runyard.agent.logs import read_tail
from runyard.agent.spec_record.identities import recorded_identity
from runyard.agent.spec_record.redaction import redacted
from runyard.agent.supervisor.records import ExitRecord, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectory

STDERR_TAIL_BYTES = 8192
"""Most of `Outcome.stderr_tail`, in bytes of UTF-8: see `runyard.v1.Outcome`."""

_KINDS = {
    "signaled": OutcomeKind.FAILED,
    "oom_killed": OutcomeKind.OOM_KILLED,
    "start_failed": OutcomeKind.START_FAILED,
    "stopped": OutcomeKind.STOPPED,
    "timed_out": OutcomeKind.TIMED_OUT,
    "node_lost": OutcomeKind.NODE_LOST,
    "node_shutdown": OutcomeKind.NODE_SHUTDOWN,
    "exit_unknown": OutcomeKind.EXIT_UNKNOWN,
}


def key_of(directory: RunDirectory) -> AttemptKey:
    """The attempt whose directory this is."""
    return AttemptKey(directory.run_id, directory.attempt)


def outcome_of(exit_record: ExitRecord, directory: RunDirectory) -> Outcome:
    """The outcome of an attempt, with the last lines of its stderr, and without its secrets.

    Raises:
        UnreadableRecord: What its secrets looked like cannot be read.
    """
    spec = directory.read_spec()
    fingerprints = spec.fingerprints if spec is not None else []
    if exit_record.cause == "exited":
        kind = OutcomeKind.SUCCEEDED if exit_record.code == 0 else OutcomeKind.FAILED
    else:
        kind = _KINDS.get(exit_record.cause, OutcomeKind.EXIT_UNKNOWN)
    return Outcome(
        kind=kind,
        message=redacted(fingerprints, exit_record.message),
        exit_code=exit_record.code,
        signal=exit_record.signal,
        stderr_tail=redacted(fingerprints, read_tail(directory.stderr, STDERR_TAIL_BYTES)),
        peak_rss_bytes=exit_record.peak_rss_bytes,
        memory_limit_bytes=exit_record.memory_limit_bytes,
        reason_code=exit_record.why,
    )


def unreadable(error: UnreadableRecord) -> Outcome:
    """The outcome of an attempt whose files cannot be read."""
    return Outcome(OutcomeKind.EXIT_UNKNOWN, f"the run directory cannot be read: {error}")


def directory_deleted() -> Outcome:
    """The outcome of an attempt whose run directory was deleted before its end was reported."""
    return Outcome(OutcomeKind.EXIT_UNKNOWN, "the run directory was deleted")


def held_attempt(directory: RunDirectory) -> HeldAttempt:
    """An attempt as its run directory has it, at this moment."""
    try:
        spec = directory.read_spec()
        phase = phase_of(directory, inspect(directory))
    except UnreadableRecord as error:
        return HeldAttempt(key_of(directory), UNKNOWN_LAUNCH, Finished(unreadable(error)))
    if spec is None:  # it was born finished
        return HeldAttempt(key_of(directory), UNKNOWN_LAUNCH, phase)
    identity = recorded_identity(spec.identity)
    return HeldAttempt(key_of(directory), identity, phase, tuple(spec.gpus))


def phase_of(directory: RunDirectory, situation: ObservedState) -> AttemptPhase:
    """The phase that an attempt in this situation is in."""
    match situation:
        case Ended(exit_record):
            return Finished(outcome_of(exit_record, directory))
        case Untouched() if directory.read_stop() is None:
            return Accepted()
        case Watched(worker) | Orphaned(worker) if worker is not None:
            return Running(worker.pid) if directory.read_stop() is None else Stopping(worker.pid)
        case _:
            return Starting() if directory.read_stop() is None else Stopping(None)
