"""The judge must see what it is there for: runs that were lost, and runs that were doubled."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.ledger import Ledger, Life
from chaos.load import EXIT_UNKNOWN, FAILED, NODE_LOST, SUCCEEDED, Kind
from chaos.verdict import Verdict, verdict_on
from harness.waiting import wait_until

from runyard.v1 import run_pb2

RUN = "8b1a9953-c461-4296-a827-abf8c47804d7"
FINE = Life(starts=[7], ends={7: 0})


def finished(kind: Kind) -> run_pb2.Run:
    return run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_FINISHED, outcome=run_pb2.Outcome(kind=kind))


def judged(
    run: run_pb2.Run | None, life: Life, *, launches: int = 1, may_end: Kind = SUCCEEDED, alive: bool = False
) -> Verdict:
    known = {RUN: run} if run else {}
    return verdict_on(
        {RUN: launches}, {RUN: {SUCCEEDED, may_end}}, known, {RUN: life}, {RUN} if alive else set()
    )


def test_run_that_ended_as_it_should_is_neither_lost_nor_doubled() -> None:
    assert judged(finished(SUCCEEDED), FINE) == Verdict(1, (), ())
    assert judged(finished(EXIT_UNKNOWN), FINE, may_end=EXIT_UNKNOWN) == Verdict(1, (), ())
    resumed = Life(starts=[7, 8], ends={8: 0})
    assert judged(finished(SUCCEEDED), resumed, launches=2) == Verdict(1, (), ())


@pytest.mark.parametrize(
    ("run", "life", "may_end", "alive", "complaint"),
    [
        (None, FINE, SUCCEEDED, False, "forgotten"),
        (run_pb2.Run(phase=run_pb2.PHASE_RUNNING, node="n1"), FINE, SUCCEEDED, False, "still PHASE_RUNNING"),
        (finished(NODE_LOST), FINE, SUCCEEDED, False, "ended as OUTCOME_KIND_NODE_LOST"),
        (finished(NODE_LOST), Life(starts=[7]), NODE_LOST, True, "and lives"),
        (finished(SUCCEEDED), Life(starts=[7]), SUCCEEDED, False, "and did not"),
        (finished(FAILED), FINE, FAILED, False, "succeeded, and is said to be"),
    ],
)
def test_lost_run_is_seen(
    run: run_pb2.Run | None, life: Life, may_end: Kind, alive: bool, complaint: str
) -> None:
    (lost,) = judged(run, life, may_end=may_end, alive=alive).lost
    assert complaint in lost


def test_run_with_more_starts_than_launches_is_doubled() -> None:
    assert judged(finished(SUCCEEDED), Life(starts=[7, 8], ends={7: 0, 8: 0})).doubled


def test_overlap_is_doubled_however_often_the_run_was_launched() -> None:
    twice = Life(starts=[7, 8], ends={7: 0, 8: 0}, overlaps=1)
    assert judged(finished(SUCCEEDED), twice, launches=2).doubled


class Workers:
    """Real workers of one run, started without anybody to prevent it."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, seconds: float) -> subprocess.Popen[bytes]:
        """Returns when the worker has written its start."""
        argv = [str(self.ledger.worker), "worker.py", "execute_run", RUN]
        environment = {**os.environ, **self.ledger.environment(seconds)}
        worker = subprocess.Popen(argv, env=environment, process_group=0)
        self.started.append(worker)
        wait_until(lambda: worker.pid in self.life.starts, "the worker starts")
        return worker

    @property
    def life(self) -> Life:
        return self.ledger.life(RUN)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    company = Workers(tmp_path)
    yield company
    for worker in company.started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def test_worker_writes_its_start_and_its_end(workers: Workers) -> None:
    worker = workers.start(0.2)
    assert workers.ledger.is_alive(RUN)
    assert worker.wait() == 0
    assert workers.life == Life(starts=[worker.pid], ends={worker.pid: 0})
    assert not workers.ledger.is_alive(RUN)


def test_second_worker_beside_a_live_one_is_noticed(workers: Workers) -> None:
    workers.start(60)
    workers.start(60)
    assert workers.life.overlaps == 1


def test_second_worker_after_a_killed_one_is_no_overlap(workers: Workers) -> None:
    first = workers.start(60)
    first.kill()
    first.wait()
    # A child that was just forked has the lock until it closes its copy.
    wait_until(lambda: not workers.ledger.is_alive(RUN), "the killed worker's lock is held")
    workers.start(60).terminate()
    assert workers.started[1].wait() == 143
    assert workers.life.overlaps == 0
    assert len(workers.life.starts) == 2
