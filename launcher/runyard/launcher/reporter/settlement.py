"""What is to be written into Dagster about a worker that began or ended. No I/O."""

from dataclasses import dataclass

from dagster import DagsterRunStatus
from dagster._core.events import RunFailureReason
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from runyard.launcher.causes import explain_end
from runyard.v1 import run_pb2


@dataclass(frozen=True)
class InDagster:
    """What Dagster's storage says of the run, freshly read."""

    status: DagsterRunStatus
    # How many resumes Dagster has begun, and whether it would begin another one.
    resumes: int
    will_resume: bool


@dataclass(frozen=True)
class Nothing:
    """Dagster needs no word of this attempt, now or later. `why` is for the log."""

    why: str


@dataclass(frozen=True)
class Announce:
    """The worker began to run, takes long to start, or goes to another node: people want to know."""


@dataclass(frozen=True)
class Cancel:
    """The run was to be canceled, and its worker ended without saying so."""

    message: str


@dataclass(frozen=True)
class Fail:
    """The worker ended, and the run with it."""

    message: str
    reason: RunFailureReason


Verdict = Nothing | Announce | Cancel | Fail


def decide(report: run_pb2.Run, latest: run_pb2.Run, dagster: InDagster | None) -> Verdict:
    """Decides what an attempt's beginning or end means for its run.

    Args:
        report: The attempt, running or finished, as it was reported.
        latest: The run's latest attempt, as the coordinator has it now.
        dagster: The run in Dagster, or None if it is not there.
    """
    if dagster is None:
        return Nothing("the run is not in this Dagster instance: deleted, or another one's")
    if dagster.status in FINISHED_STATUSES:
        return Nothing(f"Dagster has the run as {dagster.status.value}")
    if _is_superseded(report, latest, dagster):
        return Nothing("a later attempt serves the run")
    if report.phase == run_pb2.PHASE_STARTING and not report.message:
        return Nothing("the worker has begun meanwhile")
    if report.phase != run_pb2.PHASE_FINISHED:
        return Announce()
    return _verdict_on_end(report, dagster)


def _is_superseded(report: run_pb2.Run, latest: run_pb2.Run, dagster: InDagster) -> bool:
    """A resume that Dagster has begun counts although the coordinator may not have it yet."""
    return (
        latest.attempt > report.attempt
        or latest.resume_number > report.resume_number
        or dagster.resumes > report.resume_number
    )


def _verdict_on_end(report: run_pb2.Run, dagster: InDagster) -> Verdict:
    message = explain_end(report)
    stopped_on_request = report.outcome.kind == run_pb2.OUTCOME_KIND_STOPPED and report.stop_requested
    if dagster.status == DagsterRunStatus.CANCELING or stopped_on_request:
        return Cancel(message)
    if dagster.status.value == "SUSPENDED":  # by name: older Dagster lacks it
        return Nothing("the run is suspended and has no worker on purpose")
    if dagster.status == DagsterRunStatus.STARTED and dagster.will_resume:
        return Nothing("Dagster's run monitoring will resume the run")
    return Fail(message, _failure_reason(report))


def _failure_reason(report: run_pb2.Run) -> RunFailureReason:
    never_ran = not report.HasField("running_at")
    if report.outcome.kind == run_pb2.OUTCOME_KIND_TIMED_OUT and never_ran:
        return RunFailureReason.START_TIMEOUT
    return RunFailureReason.UNEXPECTED_TERMINATION
