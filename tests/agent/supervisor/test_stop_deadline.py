"""When a worker that was asked to stop is killed, whichever process watches it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.agent.supervisor.records import StopRequest
from runyard.agent.supervisor.stop_deadline import StopDeadline

SECONDS = st.floats(0, 1e6)
CLOCKS = st.floats(0, 4e9)


def request(grace: float, at: float, boottime: float | None = None) -> StopRequest:
    return StopRequest(grace, "by alice", requested_at=at, requested_at_boottime=boottime)


@given(grace=SECONDS, now=SECONDS)
def test_whoever_delivers_the_signal_gives_the_whole_grace_period(grace: float, now: float) -> None:
    deadline = StopDeadline.from_delivery(request(grace, 0.0), now)
    assert deadline.seconds_left(now) == pytest.approx(grace, abs=1e-6)


@given(grace=SECONDS, requested=SECONDS, waited=SECONDS, wall=CLOCKS, requested_wall=CLOCKS)
def test_a_successor_counts_from_the_request_whatever_happened_to_the_wall_clock(
    grace: float, requested: float, waited: float, wall: float, requested_wall: float
) -> None:
    now = requested + waited
    deadline = StopDeadline.from_request(request(grace, requested_wall, requested), now, wall)
    assert deadline.seconds_left(now) == pytest.approx(max(0.0, requested + grace - now), abs=1e-6)


@given(grace=SECONDS, now=SECONDS, wall=CLOCKS, requested_wall=CLOCKS, boottime=st.none() | st.floats(0, 1e9))
def test_no_clock_makes_the_grace_period_longer_or_negative(
    grace: float, now: float, wall: float, requested_wall: float, boottime: float | None
) -> None:
    deadline = StopDeadline.from_request(request(grace, requested_wall, boottime), now, wall)
    assert now <= deadline.kill_at <= now + grace + 1e-6


@given(grace=SECONDS, waited=SECONDS, now=SECONDS, at=st.floats(0, 2e9))
def test_a_request_without_its_boot_time_counts_by_the_wall_clock(
    grace: float, waited: float, now: float, at: float
) -> None:
    deadline = StopDeadline.from_request(request(grace, at), now, at + waited)
    assert deadline.seconds_left(now) == pytest.approx(max(0.0, grace - waited), abs=1e-3)


def test_a_request_of_an_earlier_boot_counts_by_the_wall_clock() -> None:
    deadline = StopDeadline.from_request(request(30.0, at=1_000.0, boottime=500.0), 20.0, 1_010.0)
    assert deadline.kill_at == 40.0


@given(first=SECONDS, second=SECONDS, now=SECONDS, later=SECONDS)
def test_a_repeated_request_can_only_bring_the_deadline_forward(
    first: float, second: float, now: float, later: float
) -> None:
    before = StopDeadline.from_delivery(request(first, 0.0), now)
    after = StopDeadline.from_delivery(request(second, 0.0), now + later).or_earlier(before)
    assert after.kill_at <= before.kill_at
    assert after.or_earlier(None) == after


@given(grace=SECONDS, now=SECONDS, passed=SECONDS)
def test_a_deadline_that_is_due_stays_due(grace: float, now: float, passed: float) -> None:
    deadline = StopDeadline.from_delivery(request(grace, 0.0), now)
    assert deadline.is_due(deadline.kill_at + passed)
    assert deadline.is_due(now + passed) == (deadline.seconds_left(now + passed) == 0.0)


def test_the_time_of_a_request_is_on_disk_and_older_requests_have_none() -> None:
    stop = request(1.0, 2.0, 3.0)
    assert StopRequest.decode(stop.encode()) == stop
    assert replace(stop, requested_at_boottime=None) == request(1.0, 2.0)
