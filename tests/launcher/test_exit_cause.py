"""The word that tells programs why a worker is over."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from runyard.launcher.causes import exit_cause
from runyard.v1 import run_pb2
from runyard.v1.run_pb2 import Outcome

ENDS = [
    (Outcome(kind=run_pb2.OUTCOME_KIND_OOM_KILLED, signal=9), "oom_killed"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, signal=11), "signal_SIGSEGV"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, signal=63), "signal_63"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, exit_code=3), "exit_code_3"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_SUCCEEDED, exit_code=0), "exit_code_0"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_START_FAILED), "start_failed"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_START_FAILED, cause="disk_full"), "disk_full"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_NODE_LOST, cause="node_rebooted"), "node_rebooted"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_NODE_LOST), "node_lost"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_STOPPED, cause="lease_expired"), "lease_expired"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_STOPPED, signal=15), "stopped"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_TIMED_OUT), "start_timeout"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_NODE_SHUTDOWN), "node_shutdown"),
    (Outcome(kind=run_pb2.OUTCOME_KIND_EXIT_UNKNOWN), "exit_unknown"),
]


@pytest.mark.parametrize(("outcome", "cause"), ENDS, ids=[cause for _, cause in ENDS])
def test_every_end_has_a_word(outcome: Outcome, cause: str) -> None:
    assert exit_cause(run_pb2.Run(outcome=outcome)) == cause


def test_a_stop_by_a_user_is_told_from_others() -> None:
    outcome = Outcome(kind=run_pb2.OUTCOME_KIND_STOPPED, signal=15)
    assert exit_cause(run_pb2.Run(outcome=outcome, stop_requested=True)) == "stopped_by_user"


def test_a_worker_that_had_begun_ran_out_of_time_and_did_not_fail_to_start() -> None:
    outcome = Outcome(kind=run_pb2.OUTCOME_KIND_TIMED_OUT)
    assert exit_cause(run_pb2.Run(outcome=outcome, running_at=Timestamp(seconds=1))) == "timed_out"
