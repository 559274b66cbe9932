"""What Dagster's run monitoring should believe of a run.

It takes everything but RUNNING and SUCCESS for death, and fails the run or starts a second worker. So FAILED
is said only of an attempt that is provably over, and SUCCESS and UNKNOWN never: monitoring asks only about
unfinished runs, and would leave one with SUCCESS as it is for ever.
"""

from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

from runyard.launcher.causes import explain_end, explain_position, worker_id
from runyard.v1 import run_pb2


def health_of(run: run_pb2.Run) -> CheckRunHealthResult:
    """Judges an unfinished run by what the coordinator has of it."""
    if run.phase == run_pb2.PHASE_FINISHED:
        return CheckRunHealthResult(WorkerStatus.FAILED, explain_end(run), run_worker_id=worker_id(run))
    return CheckRunHealthResult(WorkerStatus.RUNNING, explain_position(run), run_worker_id=worker_id(run))


def health_of_unknown(run_id: str, address: str) -> CheckRunHealthResult:
    """Judges a run that the coordinator says it never had."""
    return CheckRunHealthResult(
        WorkerStatus.NOT_FOUND,
        f"Runyard's coordinator at {address} has no worker of run {run_id}, and no node that could bring one",
    )
