"""Every row of the health table."""

import re

import pytest
from dagster._core.launcher import WorkerStatus

from runyard.launcher.health import health_of
from runyard.v1 import run_pb2

LIVE_PHASES = [
    run_pb2.PHASE_QUEUED,
    run_pb2.PHASE_ASSIGNED,
    run_pb2.PHASE_STARTING,
    run_pb2.PHASE_RUNNING,
    run_pb2.PHASE_STOPPING,
]

ENDS = [
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_SUCCEEDED), "exited with code 0 and left the run unfinished"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, exit_code=3), "exited with code 3"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, exit_code=0), "exited with code 0"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, signal=11), "killed by SIGSEGV"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, signal=63), "killed by signal 63"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_OOM_KILLED), "killed because it ran out of memory"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_START_FAILED), "could not be started"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_STOPPED), "was stopped"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_TIMED_OUT), "exceeded its time limit"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_NODE_LOST), "lost together with its node"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_EXIT_UNKNOWN), "its exit was not observed"),
    (run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_NODE_SHUTDOWN), "stopped because its machine shut down"),
]


@pytest.mark.parametrize("unreachable", [False, True])
@pytest.mark.parametrize("phase", LIVE_PHASES, ids=run_pb2.Phase.Name)
def test_a_worker_that_is_not_over_is_running(phase: run_pb2.Phase.ValueType, unreachable: bool) -> None:
    run = run_pb2.Run(run_id="r", phase=phase, node="node-1", unreachable=unreachable)
    assert health_of(run).status == WorkerStatus.RUNNING


@pytest.mark.parametrize(("outcome", "cause"), ENDS, ids=[cause for _, cause in ENDS])
def test_a_worker_that_is_over_has_failed(outcome: run_pb2.Outcome, cause: str) -> None:
    run = run_pb2.Run(run_id="r", phase=run_pb2.PHASE_FINISHED, outcome=outcome, message="gone since noon")
    seen = health_of(run)
    assert seen.status == WorkerStatus.FAILED
    assert re.search(cause, seen.msg or "")


def test_every_outcome_is_in_the_table() -> None:
    covered = {outcome.kind for outcome, _ in ENDS} | {run_pb2.OUTCOME_KIND_UNSPECIFIED}
    assert covered == set(run_pb2.OutcomeKind.values())
