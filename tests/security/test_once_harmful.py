"""What fuzzing once found: single messages that stopped a coordinator, or poisoned its account for good."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from coordinator.fleet_building import finished, make_hello, running
from coordinator.serving import make_spec, run_id
from security.besieged import Answer, Siege, besieged

from runyard.v1 import agent_pb2, launch_pb2, run_pb2

REFUSED = grpc.StatusCode.INVALID_ARGUMENT
RUN = run_id(1)
AT_ONCE = 2.0
"""Seconds. What these took on the event loop was minutes, or hours."""


@pytest.fixture(scope="module")
def siege() -> Iterator[Siege]:
    with besieged() as one:
        yield one


@pytest.fixture(autouse=True)
def nobody_notices(siege: Siege) -> Iterator[None]:
    yield
    siege.assert_undisturbed()
    siege.assert_nothing_unforeseen()


def launched(siege: Siege, spec: run_pb2.LaunchSpec) -> Answer:
    request = launch_pb2.LaunchRunRequest(spec=spec)
    return siege.unary("/runyard.v1.LaunchService/LaunchRun", request.SerializeToString())


def said(siege: Siege, *messages: dict[str, Any]) -> Answer:
    requests = [agent_pb2.SessionRequest(**message).SerializeToString() for message in messages]
    return siege.talking("/runyard.v1.AgentService/Session", requests)


@pytest.mark.parametrize("told", [running, finished])
def test_a_run_of_the_last_attempt_there_can_be_is_not_adopted(siege: Siege, told: Any) -> None:
    answer = said(siege, {"hello": make_hello(attempts=[told(RUN, (1 << 32) - 1)])})
    assert answer.code == REFUSED
    assert siege.unary("/runyard.v1.LaunchService/ListRuns", b"").code == grpc.StatusCode.OK


def test_an_attempt_without_a_sensible_name_ends_the_session_before_it_counts(siege: Siege) -> None:
    strange = running("../../etc/passwd", 1)
    beat = agent_pb2.Heartbeat(sequence=1, attempts=[strange])
    assert said(siege, {"hello": make_hello()}, {"heartbeat": beat}).code == grpc.StatusCode.OK
    listed = siege.unary("/runyard.v1.LaunchService/ListRuns", b"")
    assert listed.code == grpc.StatusCode.OK
    assert siege.service.events("message_refused")


def test_a_time_limit_longer_than_protobuf_can_say_is_refused(siege: Siege) -> None:
    for field in ("grace", "max_queue_time", "start_timeout", "stop_after"):
        spec = make_spec(RUN)
        getattr(spec.policies, field).seconds = (1 << 63) - 1
        answer = launched(siege, spec)
        assert (answer.code, field in answer.details) == (REFUSED, True)


def test_labels_of_spaces_and_endless_lists_take_no_time(siege: Siege) -> None:
    spaces, many = "a" + " " * 8_000 + "b", ",".join(f"a{number}" for number in range(100_000))
    for tag, text in {"labels": spaces, "prefer": many, "tolerations": many}.items():
        began = time.monotonic()
        assert launched(siege, make_spec(RUN, tags={f"runyard/{tag}": text})).code == REFUSED
        assert time.monotonic() - began < AT_ONCE
    spec = make_spec(RUN)
    spec.requirements.labels.append(spaces)
    assert launched(siege, spec).code == REFUSED
    spec.requirements.labels.extend(many.split(","))
    assert launched(siege, spec).code == REFUSED


def test_nesting_just_below_the_limit_of_the_parser_is_refused_like_any_other(siege: Siege) -> None:
    for depth in range(900, 1_000, 5):
        nested = "[" * depth + "]" * depth
        asked = '{"labels": ' + nested + "}"
        spec = make_spec(RUN, tags={"runyard/labels": nested})
        assert launched(siege, spec).code == REFUSED, depth
        spec = make_spec(RUN, tags={"runyard/config": asked})
        assert launched(siege, spec).code == REFUSED, depth
        spec = make_spec(RUN)
        spec.code_origin.container_context_json = '{"runyard": ' + asked + "}"
        assert launched(siege, spec).code == REFUSED, depth


def test_bytes_that_are_no_message_are_the_fault_of_who_sent_them(siege: Siege) -> None:
    for method in ("LaunchService/FollowReports", "AgentService/Session"):
        answer = siege.talking(f"/runyard.v1.{method}", [b"\xff" * 50])
        assert answer.code == REFUSED
