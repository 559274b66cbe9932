"""The decision what to write into Dagster when a worker has started or ended. No I/O."""

from dataclasses import dataclass

from dagster import DagsterRunStatus
from dagster._core.events import RunFailureReason
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from runyard.launcher.causes import explain_end
from runyard.v1 import run_pb2


@dataclass(frozen=True)
class DagsterState:
    """The run as Dagster's storage has it, just read."""

    status: DagsterRunStatus
    # Resumes that Dagster has begun, and whether it would begin another.
    resumes: int
    will_resume: bool


@dataclass(frozen=True)
class Nothing:
    """Nothing needs to be written for this attempt, now or later. `message` is for the log."""

    message: str


@dataclass(frozen=True)
class Announce:
    """The worker started, is slow to start, or moves to another node: add an event to the log."""


@dataclass(frozen=True)
class Cancel:
    """The run was being canceled, and its worker ended without recording that."""

    message: str


@dataclass(frozen=True)
class Fail:
    """The worker ended without recording the end of the run: the run has failed."""

    message: str
    reason: RunFailureReason


Settlement = Nothing | Announce | Cancel | Fail


def decide(report: run_pb2.Run, latest: run_pb2.Run, dagster: DagsterState | None) -> Settlement:
    """Decide what the start or end of an attempt means for its run.

    Args:
        report: The attempt, running or finished, as reported.
        latest: The run's latest attempt, as the coordinator has it now.
        dagster: The run in Dagster, or None if it is not there.
    """
    if dagster is None:
        return Nothing("the run is not in this Dagster instance: deleted, or of another instance")
    if dagster.status in FINISHED_STATUSES:
        return Nothing(f"Dagster has the run as {dagster.status.value}")
    if _is_superseded(report, latest, dagster):
        return Nothing("a later attempt serves the run")
    if report.phase == run_pb2.PHASE_STARTING and not report.message:
        return Nothing("the worker has started in the meantime")
    if report.phase != run_pb2.PHASE_FINISHED:
        return Announce()
    return _settlement_of_end(report, dagster)


def _is_superseded(report: run_pb2.Run, latest: run_pb2.Run, dagster: DagsterState) -> bool:
    """A resume that Dagster has begun counts although the coordinator may not have it yet."""
    return (
        latest.attempt > report.attempt
        or latest.resume_number > report.resume_number
        or dagster.resumes > report.resume_number
    )


def _settlement_of_end(report: run_pb2.Run, dagster: DagsterState) -> Settlement:
    message = explain_end(report)
    stopped_on_request = report.outcome.kind == run_pb2.OUTCOME_KIND_STOPPED and report.stop_requested
    if dagster.status == DagsterRunStatus.CANCELING or stopped_on_request:
        return Cancel(message)
    if dagster.status.value == "SUSPENDED":  # by name: older Dagster lacks it
        return Nothing("the run is suspended, so it has no worker")
    if dagster.status == DagsterRunStatus.STARTED and dagster.will_resume:
        return Nothing("Dagster's run monitoring will resume the run")
    return Fail(message, _failure_reason(report))


def _failure_reason(report: run_pb2.Run) -> RunFailureReason:
    never_ran = not report.HasField("running_at")
    if report.outcome.kind == run_pb2.OUTCOME_KIND_TIMED_OUT and never_ran:
        return RunFailureReason.START_TIMEOUT
    return RunFailureReason.UNEXPECTED_TERMINATION
