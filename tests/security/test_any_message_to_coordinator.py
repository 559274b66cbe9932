"""Whatever is said to the coordinator, it answers with a reason, and nobody else notices."""

from collections.abc import Iterator

import grpc
import pytest
from coordinator.fleet_building import make_hello
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from hypothesis import strategies as st
from security.arbitrary import Wire, sent_snapshots, wire
from security.besieged import Siege, besieged, besieged_fort
from security.rounds import fuzz

from runyard.coordinator.services import SERVICES
from runyard.v1 import agent_pb2, fleet_pb2, launch_pb2, security_pb2

FILES = (agent_pb2, launch_pb2, fleet_pb2, security_pb2)
"""Agents first: so there are nodes and runs for others to ask for. And snapshots before launches."""

METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    if service.name != "JoinService"  # has a server of its own
    for method in sorted(service.methods, key=lambda method: method.name != "StoreSnapshot")
]


@pytest.fixture(scope="module")
def siege() -> Iterator[Siege]:
    """One coordinator for all: what one method breaks, the honest see through another."""
    with besieged() as one:
        yield one
        one.assert_memory_bounded()


def path_of(method: MethodDescriptor) -> str:
    service: ServiceDescriptor = method.containing_service
    return f"/{service.full_name}/{method.name}"


def test_all_services_are_attacked() -> None:
    attacked = {method.containing_service.full_name for method in METHODS}
    assert attacked == set(SERVICES)


def conversations(method: MethodDescriptor) -> st.SearchStrategy[list[Wire]]:
    """What a client may say in one call."""
    anything = st.lists(wire(method.input_type), min_size=1, max_size=6 if method.client_streaming else 1)
    if method.name == "StoreSnapshot":
        return anything | sent_snapshots()
    if method.name != "Session":
        return anything
    # Hardly anything else gets past Hello.
    hello = Wire(agent_pb2.SessionRequest(hello=make_hello("node-a")).SerializeToString(), method.input_type)
    return anything | anything.map(lambda said: [hello, *said])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_any_message_is_answered(siege: Siege, method: MethodDescriptor) -> None:
    def attack(messages: list[Wire]) -> None:
        datas = [message.data for message in messages]
        match method.client_streaming, method.server_streaming:
            case False, False:
                answer = siege.unary(path_of(method), datas[0])
            case False, True:
                answer = siege.reading(path_of(method), datas[0])
            case True, False:
                answer = siege.writing(path_of(method), datas)
            case _:
                answer = siege.talking(path_of(method), datas)
        no_message = any(message.read is None for message in messages)
        # gRPC itself answers so to a single message that is none.
        assert answer.is_sensible or (no_message and answer.code == grpc.StatusCode.UNKNOWN), answer
        siege.assert_undisturbed()
        siege.assert_nothing_unforeseen()

    ordinary = 3.0 if method.name == "Session" else 0.5
    assert fuzz(conversations(method), attack, ordinary, share=1 / len(method.containing_service.methods))
    siege.assert_memory_bounded()


def test_any_request_to_join_is_answered() -> None:
    method = security_pb2.DESCRIPTOR.services_by_name["JoinService"].methods_by_name["Join"]
    with besieged_fort() as fort:

        def attack(message: Wire) -> None:
            answer = fort.unary(path_of(method), message.data)
            assert answer.code is not grpc.StatusCode.OK
            assert answer.is_sensible or (message.read is None and answer.code == grpc.StatusCode.UNKNOWN), (
                answer
            )
            fort.assert_undisturbed()
            fort.assert_nothing_unforeseen()

        assert fuzz(wire(method.input_type), attack, ordinary=1.0)
        fort.assert_memory_bounded()
