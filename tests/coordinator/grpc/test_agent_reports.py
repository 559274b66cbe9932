"""Conversion of agents' reports: everything is checked before the core sees it."""

from collections.abc import Callable

import pytest
from coordinator.fleet_building import make_hello, running, status

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.model import Pressure
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.grpc.messages.agent_reports import (
    MOST_ATTEMPTS,
    attempt_status_of,
    heartbeat_of,
    hello_of,
)
from runyard.v1 import agent_pb2, fleet_pb2, placement_pb2, run_pb2


def test_a_hello_has_its_capacity_attempts_and_pressures_in_types_of_the_core() -> None:
    message = make_hello(slots=3, attempts=[running(pid=41)])
    message.pressures.add(kind=fleet_pb2.PRESSURE_KIND_MEMORY, message="1 MiB left")
    message.attempts[0].requirements.resources["memory"] = 5
    hello = hello_of(message)
    assert hello.capacity.resources == Resources.of({"slots": 3})
    assert hello.pressures == (Pressure("memory", "1 MiB left"),)
    (attempt,) = hello.attempts
    assert (attempt.pid, attempt.phase, attempt.usage) == (41, run_pb2.PHASE_RUNNING, None)
    assert attempt.requirements.resources == Resources.of({"slots": 1, "memory": 5})


def test_a_heartbeat_without_an_offer_leaves_the_capacity_as_it_is() -> None:
    assert heartbeat_of(agent_pb2.Heartbeat(sequence=1)).capacity is None
    offer = placement_pb2.Offer(resources={"slots": 1})
    capacity = heartbeat_of(agent_pb2.Heartbeat(sequence=1, offer=offer)).capacity
    assert capacity is not None
    assert capacity.slots == 1


def broken(change: Callable[[agent_pb2.Hello], object]) -> agent_pb2.Hello:
    message = make_hello(attempts=[running()])
    change(message)
    return message


MALFORMED: dict[str, Callable[[agent_pb2.Hello], object]] = {
    "node_id: ": lambda hello: setattr(hello, "node_id", "a b"),
    "cluster: ": lambda hello: setattr(hello, "cluster", ""),
    "installation_id: must have 1 to 64 characters": lambda hello: hello.ClearField("installation_id"),
    "boot_id: must have 1 to 64 characters": lambda hello: setattr(hello, "boot_id", "x" * 65),
    "offer.labels: ": lambda hello: hello.offer.labels.update({"a b": ""}),
    "offer.taints: ": lambda hello: hello.offer.taints.append("a b"),
    "offer.resources: ": lambda hello: hello.offer.resources.update({"a b": 1}),
    "attempts.run_id: ": lambda hello: setattr(hello.attempts[0], "run_id", "a b"),
    "requirements.driver: ": lambda hello: setattr(hello.attempts[0].requirements, "driver", "a b"),
    "requirements.labels: ": lambda hello: hello.attempts[0].requirements.labels.append("=a"),
}


@pytest.mark.parametrize("problem", MALFORMED)
def test_a_malformed_hello_is_refused_with_the_name_of_the_field(problem: str) -> None:
    with pytest.raises(InvalidField) as refused:
        hello_of(broken(MALFORMED[problem]))
    assert str(refused.value).startswith(problem)


def test_an_attempt_number_must_leave_room_for_the_next() -> None:
    assert attempt_status_of(status(run_pb2.PHASE_RUNNING, attempt=MOST_ATTEMPTS)).attempt == MOST_ATTEMPTS
    with pytest.raises(InvalidField, match=r"^attempts\.attempt: is 1000001; no run has more than 1000000$"):
        attempt_status_of(status(run_pb2.PHASE_RUNNING, attempt=MOST_ATTEMPTS + 1))
