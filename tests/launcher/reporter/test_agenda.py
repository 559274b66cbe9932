"""Which case is next, by a clock that the test turns; and the threads that wait for one."""

import threading

from harness.waiting import wait_until
from launcher.threads import in_thread

from runyard.launcher.reporter.report_queue import Agenda, Case
from runyard.v1 import run_pb2


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def case(run_id: str, **details: int) -> Case:
    return Case(run_pb2.Run(run_id=run_id, **details))  # type: ignore[arg-type]


def test_cases_come_in_the_order_in_which_they_are_due() -> None:
    clock = Clock()
    agenda = Agenda(clock=clock)
    agenda.postpone(case("later"), 2)
    agenda.postpone(case("soon"), 1)
    agenda.add(case("now"))
    taken = [agenda.take(0)]
    assert agenda.take(0) is None
    clock.now += 1
    taken.append(agenda.take(0))
    clock.now += 1
    taken.append(agenda.take(0))
    assert [found.run.run_id for found in taken if found] == ["now", "soon", "later"]


def test_a_newer_report_of_an_attempt_takes_the_place_of_the_older() -> None:
    agenda = Agenda(clock=Clock())
    agenda.add(case("r", phase=run_pb2.PHASE_RUNNING))
    agenda.add(case("r", phase=run_pb2.PHASE_FINISHED))
    found = agenda.take(0)
    assert found
    assert found.run.phase == run_pb2.PHASE_FINISHED
    assert agenda.take(0) is None


def test_a_case_that_is_put_back_gives_way_to_a_newer_report() -> None:
    clock = Clock()
    agenda = Agenda(clock=clock)
    agenda.add(case("r", phase=run_pb2.PHASE_FINISHED))
    agenda.postpone(case("r", phase=run_pb2.PHASE_RUNNING), 0)
    clock.now += 1
    found = agenda.take(0)
    assert found
    assert found.run.phase == run_pb2.PHASE_FINISHED
    assert agenda.take(0) is None


def test_attempts_of_one_run_are_cases_of_their_own() -> None:
    agenda = Agenda(clock=Clock())
    agenda.add(case("r", attempt=0))
    agenda.add(case("r", attempt=1))
    assert agenda.take(0)
    assert agenda.take(0)


def test_a_full_agenda_makes_the_next_report_wait() -> None:
    agenda = Agenda(max_cases=1)
    agenda.add(case("first"))
    with in_thread(lambda: agenda.add(case("second"))) as adding:
        adding.join(0.05)
        assert adding.is_alive()
        assert agenda.take(0)
        second = agenda.take(5)
    assert second
    assert second.run.run_id == "second"


def test_closing_lets_everyone_go() -> None:
    agenda = Agenda(max_cases=1)
    agenda.add(case("first"))
    agenda.take(0)
    taking = threading.Thread(target=agenda.take, args=(60,))
    taking.start()
    agenda.close()
    wait_until(lambda: not taking.is_alive(), "the waiting thread goes on", timeout=30)
