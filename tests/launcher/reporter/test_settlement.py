"""Every row of the reporter's table."""

import pytest
from dagster import DagsterRunStatus
from dagster._core.events import RunFailureReason

from runyard.launcher.reporter.settlement import (
    Announce,
    Cancel,
    DagsterState,
    Fail,
    Nothing,
    Settlement,
    decide,
)
from runyard.v1 import run_pb2

STARTING = DagsterRunStatus.STARTING
STARTED = DagsterRunStatus.STARTED
CANCELING = DagsterRunStatus.CANCELING

FAILED = run_pb2.OUTCOME_KIND_FAILED
STOPPED = run_pb2.OUTCOME_KIND_STOPPED
TIMED_OUT = run_pb2.OUTCOME_KIND_TIMED_OUT

ENDS = [kind for kind in run_pb2.OutcomeKind.values() if kind != run_pb2.OUTCOME_KIND_UNSPECIFIED]


def ended(
    kind: run_pb2.OutcomeKind.ValueType = FAILED,
    *,
    attempt: int = 0,
    resume_number: int = 0,
    stop_requested: bool = False,
) -> run_pb2.Run:
    return run_pb2.Run(
        run_id="r",
        attempt=attempt,
        resume_number=resume_number,
        phase=run_pb2.PHASE_FINISHED,
        stop_requested=stop_requested,
        outcome=run_pb2.Outcome(kind=kind),
    )


def in_dagster(status: DagsterRunStatus, resumes: int = 0, will_resume: bool = False) -> DagsterState:
    return DagsterState(status, resumes, will_resume)


def judge(report: run_pb2.Run, dagster: DagsterState | None, latest: run_pb2.Run | None = None) -> Settlement:
    return decide(report, latest or report, dagster)


@pytest.mark.parametrize("kind", ENDS, ids=run_pb2.OutcomeKind.Name)
@pytest.mark.parametrize("status", [STARTING, STARTED])
def test_whatever_the_end_of_the_worker_the_run_fails_with_it(
    kind: run_pb2.OutcomeKind.ValueType, status: DagsterRunStatus
) -> None:
    settlement = judge(ended(kind), in_dagster(status))
    assert isinstance(settlement, Fail)
    assert "run worker" in settlement.message


@pytest.mark.parametrize("kind", ENDS, ids=run_pb2.OutcomeKind.Name)
def test_a_run_that_is_being_canceled_is_canceled_whatever_the_end_of_the_worker(
    kind: run_pb2.OutcomeKind.ValueType,
) -> None:
    assert isinstance(judge(ended(kind), in_dagster(CANCELING)), Cancel)


@pytest.mark.parametrize(
    "status", [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
)
def test_a_finished_run_stays_as_it_is(status: DagsterRunStatus) -> None:
    assert isinstance(judge(ended(), in_dagster(status)), Nothing)


def test_a_deleted_run_stays_deleted() -> None:
    assert isinstance(judge(ended(), None), Nothing)


def test_a_started_run_that_will_be_resumed_is_left_to_monitoring() -> None:
    assert isinstance(judge(ended(), in_dagster(STARTED, will_resume=True)), Nothing)


def test_a_run_that_never_started_is_not_resumed_so_it_fails_at_once() -> None:
    assert isinstance(judge(ended(), in_dagster(STARTING, will_resume=True)), Fail)


def test_a_run_that_an_operator_stopped_is_canceled_and_not_resumed() -> None:
    settlement = judge(ended(STOPPED, stop_requested=True), in_dagster(STARTED, will_resume=True))
    assert isinstance(settlement, Cancel)


def test_a_worker_that_was_stopped_without_a_request_fails_its_run() -> None:
    assert isinstance(judge(ended(STOPPED), in_dagster(STARTED)), Fail)


def test_a_worker_that_died_of_its_own_beside_a_stop_request_fails_its_run() -> None:
    assert isinstance(judge(ended(FAILED, stop_requested=True), in_dagster(STARTED)), Fail)


def test_an_attempt_that_another_one_superseded_is_history() -> None:
    later = run_pb2.Run(run_id="r", attempt=1, phase=run_pb2.PHASE_RUNNING)
    assert isinstance(judge(ended(attempt=0), in_dagster(STARTED), latest=later), Nothing)


def test_an_attempt_that_a_resume_superseded_is_history() -> None:
    later = run_pb2.Run(run_id="r", attempt=1, resume_number=1, phase=run_pb2.PHASE_QUEUED)
    assert isinstance(judge(ended(), in_dagster(STARTED, resumes=1), latest=later), Nothing)


def test_a_resume_that_dagster_has_begun_counts_before_the_coordinator_has_it() -> None:
    assert isinstance(judge(ended(), in_dagster(STARTED, resumes=1)), Nothing)


def test_the_last_resume_fails_the_run() -> None:
    last = ended(attempt=1, resume_number=1)
    assert isinstance(judge(last, in_dagster(STARTED, resumes=1)), Fail)


def test_a_start_that_timed_out_is_told_apart_from_a_death() -> None:
    never_ran = judge(ended(TIMED_OUT), in_dagster(STARTING))
    assert isinstance(never_ran, Fail)
    assert never_ran.reason == RunFailureReason.START_TIMEOUT
    ran = ended(TIMED_OUT)
    ran.running_at.GetCurrentTime()
    died = judge(ran, in_dagster(STARTED))
    assert isinstance(died, Fail)
    assert died.reason == RunFailureReason.UNEXPECTED_TERMINATION


@pytest.mark.parametrize("status", [STARTING, STARTED, CANCELING])
def test_a_worker_that_began_to_run_is_announced(status: DagsterRunStatus) -> None:
    running = run_pb2.Run(run_id="r", phase=run_pb2.PHASE_RUNNING, pid=1)
    assert judge(running, in_dagster(status)) == Announce()


def test_a_worker_that_began_for_a_finished_run_is_not_announced() -> None:
    running = run_pb2.Run(run_id="r", phase=run_pb2.PHASE_RUNNING, pid=1)
    assert isinstance(judge(running, in_dagster(DagsterRunStatus.FAILURE)), Nothing)
