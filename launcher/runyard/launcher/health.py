"""Health of a run for Dagster's run monitoring.

Monitoring treats everything but RUNNING and SUCCESS as death, and fails the run or starts a second worker. So
FAILED is returned only for an attempt that is proven to be over. SUCCESS and UNKNOWN are never returned:
monitoring asks only about unfinished runs, and would leave one with SUCCESS alone for ever.
"""

from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

from runyard.launcher.causes import explain_end, explain_position, worker_id
from runyard.v1 import run_pb2


def health_of(run: run_pb2.Run) -> CheckRunHealthResult:
    """Health of an unfinished run that the coordinator knows."""
    if run.phase == run_pb2.PHASE_FINISHED:
        return CheckRunHealthResult(WorkerStatus.FAILED, explain_end(run), run_worker_id=worker_id(run))
    return CheckRunHealthResult(WorkerStatus.RUNNING, explain_position(run), run_worker_id=worker_id(run))


def health_of_unknown(run_id: str, address: str) -> CheckRunHealthResult:
    """Health of a run that the coordinator does not know."""
    return CheckRunHealthResult(
        WorkerStatus.NOT_FOUND,
        f"Runyard's coordinator at {address} has no worker of run {run_id}, and no node that could bring one",
    )
