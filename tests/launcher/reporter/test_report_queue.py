"""Which report is next, by a clock that the test turns; and the threads that wait for one."""

import threading

from harness.waiting import wait_until
from launcher.support.threads import in_thread

from runyard.launcher.reporter.report_queue import PendingReport, ReportQueue
from runyard.v1 import run_pb2


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def case(run_id: str, **details: int) -> PendingReport:
    return PendingReport(run_pb2.Run(run_id=run_id, **details))  # type: ignore[arg-type]


def test_cases_come_in_the_order_in_which_they_are_due() -> None:
    clock = Clock()
    queue = ReportQueue(clock=clock)
    queue.postpone(case("later"), 2)
    queue.postpone(case("soon"), 1)
    queue.add(case("now"))
    taken = [queue.take(0)]
    assert queue.take(0) is None
    clock.now += 1
    taken.append(queue.take(0))
    clock.now += 1
    taken.append(queue.take(0))
    assert [found.run.run_id for found in taken if found] == ["now", "soon", "later"]


def test_a_newer_report_of_an_attempt_takes_the_place_of_the_older() -> None:
    queue = ReportQueue(clock=Clock())
    queue.add(case("r", phase=run_pb2.PHASE_RUNNING))
    queue.add(case("r", phase=run_pb2.PHASE_FINISHED))
    found = queue.take(0)
    assert found
    assert found.run.phase == run_pb2.PHASE_FINISHED
    assert queue.take(0) is None


def test_a_case_that_is_put_back_gives_way_to_a_newer_report() -> None:
    clock = Clock()
    queue = ReportQueue(clock=clock)
    queue.add(case("r", phase=run_pb2.PHASE_FINISHED))
    queue.postpone(case("r", phase=run_pb2.PHASE_RUNNING), 0)
    clock.now += 1
    found = queue.take(0)
    assert found
    assert found.run.phase == run_pb2.PHASE_FINISHED
    assert queue.take(0) is None


def test_attempts_of_one_run_are_cases_of_their_own() -> None:
    queue = ReportQueue(clock=Clock())
    queue.add(case("r", attempt=0))
    queue.add(case("r", attempt=1))
    assert queue.take(0)
    assert queue.take(0)


def test_a_full_agenda_makes_the_next_report_wait() -> None:
    queue = ReportQueue(capacity=1)
    queue.add(case("first"))
    with in_thread(lambda: queue.add(case("second"))) as adding:
        adding.join(0.05)
        assert adding.is_alive()
        assert queue.take(0)
        second = queue.take(5)
    assert second
    assert second.run.run_id == "second"


def test_closing_lets_everyone_go() -> None:
    queue = ReportQueue(capacity=1)
    queue.add(case("first"))
    queue.take(0)
    taking = threading.Thread(target=queue.take, args=(60,))
    taking.start()
    queue.close()
    wait_until(lambda: not taking.is_alive(), "the waiting thread goes on", timeout=30)
