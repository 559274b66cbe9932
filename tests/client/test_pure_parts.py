"""The parts that do no I/O: when a call is repeated, what waits to be acknowledged, how things read."""

from typing import Any

import grpc
import pytest

from runyard.client.calls import LONGEST_PAUSE_SECONDS, RepeatedCall
from runyard.client.errors import (
    CoordinatorUnreachable,
    InvalidRequest,
    ResourceExhausted,
    from_rpc_error,
)
from runyard.client.reports import MAX_PENDING, MAX_PER_MESSAGE, PendingAcknowledgements
from runyard.common.durations import parse_duration
from runyard.common.humanize import byte_size, short_duration
from runyard.common.transport.channel import RETRY_AFTER
from runyard.v1 import launch_pb2


class Failure(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str = "", retry_after: str = "") -> None:
        self._code, self._details, self._retry_after = code, details, retry_after

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return (("other", "1"), (RETRY_AFTER, self._retry_after)) if self._retry_after else None


UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE, "the first cause")
DEADLINE = Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


# Repetition


def test_pauses_are_drawn_from_a_window_that_doubles_up_to_a_bound() -> None:
    windows: list[float] = []

    def draw(low: float, high: float) -> float:
        assert low == 0
        windows.append(high)
        return high

    call = RepeatedCall("LaunchRun", "a:1", timeout=1000, now=0, draw=draw)
    for _ in range(7):
        call.pause_after(UNAVAILABLE, now=1)
    assert windows == [0.1, 0.2, 0.4, 0.8, 1.6, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]


def test_nothing_is_repeated_that_would_miss_the_deadline() -> None:
    call = RepeatedCall("LaunchRun", "a:1", timeout=10, now=100, draw=lambda low, high: high)
    assert call.remaining(now=104) == 6
    assert call.pause_after(UNAVAILABLE, now=109.8) == 0.1
    with pytest.raises(CoordinatorUnreachable):
        call.pause_after(UNAVAILABLE, now=109.9)
    assert call.remaining(now=111) == 0


def test_a_last_try_that_is_cut_short_does_not_hide_the_cause() -> None:
    call = RepeatedCall("LaunchRun", "a:1", timeout=10, now=0)
    call.pause_after(UNAVAILABLE, now=1)
    with pytest.raises(CoordinatorUnreachable, match="the first cause"):
        call.pause_after(DEADLINE, now=10)


def test_an_answer_that_will_not_change_is_not_asked_for_again() -> None:
    call = RepeatedCall("LaunchRun", "a:1", timeout=10, now=0)
    with pytest.raises(InvalidRequest, match=r"spec\.run_id: is empty"):
        call.pause_after(Failure(grpc.StatusCode.INVALID_ARGUMENT, "spec.run_id: is empty"), now=0)


def test_who_calls_too_often_asks_again_when_told_to_and_not_with_all_the_others() -> None:
    too_often = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls", retry_after="2500")
    call = RepeatedCall("LaunchRun", "a:1", timeout=10, now=0, draw=lambda low, high: high)
    assert call.pause_after(too_often, now=0) == 2.6
    assert call.pause_after(too_often, now=7.45) == pytest.approx(2.55)  # the deadline
    with pytest.raises(ResourceExhausted):
        call.pause_after(too_often, now=7.6)


@pytest.mark.parametrize("told", ["", "soon", "-5", "1.5"])
def test_a_refusal_that_does_not_say_when_to_come_back_is_final(told: str) -> None:
    call = RepeatedCall("LaunchRun", "a:1", timeout=10, now=0)
    with pytest.raises(ResourceExhausted):
        call.pause_after(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "disk full", retry_after=told), now=0)


# Errors


@pytest.mark.parametrize(
    ("details", "message"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:1: "
            "Failed to connect to remote host: Connection refused",
            "the coordinator at a:1 cannot be reached: connection refused. "
            "Check that it runs there, and the address",
        ),
        ("node n1 is silent", "the coordinator at a:1 cannot answer now: node n1 is silent"),
        ("", "the coordinator at a:1 cannot answer now: unavailable"),
    ],
)
def test_an_unreachable_coordinator_is_told_from_one_that_cannot_answer(details: str, message: str) -> None:
    error = from_rpc_error(Failure(grpc.StatusCode.UNAVAILABLE, details), "a:1", "GetRun")
    assert str(error) == message


def test_an_answer_without_words_is_explained_by_its_kind() -> None:
    error = from_rpc_error(Failure(grpc.StatusCode.UNIMPLEMENTED), "a:1", "GetRun")
    assert str(error) == "The coordinator is too old for this call; upgrade it before its clients."


# Acknowledgements


def keys(count: int) -> list[launch_pb2.AttemptKey]:
    return [launch_pb2.AttemptKey(run_id=f"r{number}", attempt=1) for number in range(count)]


def test_acknowledgements_go_out_oldest_first_each_once_and_in_bounded_messages() -> None:
    pending = PendingAcknowledgements("shop", "host:1")
    assert not pending
    pending.add(keys(MAX_PER_MESSAGE + 1))
    pending.add(keys(5))
    assert list(pending.next_request().acknowledged) == keys(MAX_PER_MESSAGE)
    assert list(pending.next_request().acknowledged) == keys(MAX_PER_MESSAGE + 1)[-1:]
    assert not pending
    assert pending.next_request() == launch_pb2.FollowReportsRequest()


def test_acknowledgements_that_nobody_takes_do_not_pile_up_for_ever() -> None:
    pending = PendingAcknowledgements("shop", "host:1")
    pending.add(keys(MAX_PENDING))
    with pytest.raises(ResourceExhausted, match="open it again"):
        pending.add(keys(MAX_PENDING + 1))


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86_399, "23h59m"),
        (90_000, "1d01h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**34, "16.0 GiB"), (2**41, "2.0 TiB")],
)
def test_sizes_are_read_at_a_glance(count: int, text: str) -> None:
    assert byte_size(count) == text


# Spans of time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172_800), (" 0.5h ", 1800)],
)
def test_spans_of_time_are_seconds_or_carry_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "m", "5 m", "-5m", "5m1h", "5M", "1e3", "soon", "inf"])
def test_what_is_no_span_of_time_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="is not a span of time; write seconds as 90"):
        parse_duration(text)
