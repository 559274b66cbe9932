"""Validation of agents' reports, and their conversion to types of the core."""

from typing import Final

from runyard.common.names import NAME
from runyard.coordinator.core.agent_reports import AttemptStatus, Heartbeat, Hello
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.grpc.messages.conversions import capacity_of, pressures_of, requirements_of
from runyard.v1 import agent_pb2

MOST_ATTEMPTS: Final = 1_000_000
"""Maximum attempt number that an agent may report: the next attempt must still fit its field."""


def hello_of(message: agent_pb2.Hello) -> Hello:
    """Return the Hello of an agent.

    Raises:
        InvalidField: A field is missing or malformed; the message names it.
    """
    for field, value in (("node_id", message.node_id), ("cluster", message.cluster)):
        if not NAME.fullmatch(value):
            raise InvalidField(
                field, f"{value[:80]!r} must be letters, digits, '.', '_' and '-' (128 at most)"
            )
    for field, value in (
        ("installation_id", message.installation_id),
        ("instance_id", message.instance_id),
        ("boot_id", message.boot_id),
    ):
        if not 0 < len(value) <= 64:
            raise InvalidField(field, "must have 1 to 64 characters")
    return Hello(
        node_id=message.node_id,
        cluster=message.cluster,
        installation_id=message.installation_id,
        boot_id=message.boot_id,
        protocol_min=message.protocol_min,
        protocol_max=message.protocol_max,
        capacity=capacity_of(message.offer),
        facts=message.facts,
        attempts=tuple(map(attempt_status_of, message.attempts)),
        last_epoch=message.last_epoch,
        warm_servers=tuple(message.warm_servers),
        pressures=pressures_of(message.pressures),
    )


def heartbeat_of(message: agent_pb2.Heartbeat) -> Heartbeat:
    """Return a heartbeat.

    Raises:
        InvalidField: A field is malformed; the message names it.
    """
    return Heartbeat(
        sequence=message.sequence,
        load=message.load,
        attempts=tuple(map(attempt_status_of, message.attempts)),
        capacity=capacity_of(message.offer) if message.HasField("offer") else None,
        warm_servers=tuple(message.warm_servers),
        pressures=pressures_of(message.pressures),
    )


def attempt_status_of(message: agent_pb2.AttemptStatus) -> AttemptStatus:
    """Return the status of an attempt, with all that the coordinator needs to adopt it.

    Raises:
        InvalidField: A field is malformed; the message names it.
    """
    if not NAME.fullmatch(message.run_id):
        raise InvalidField("attempts.run_id", f"{message.run_id[:80]!r} is not the ID of a run")
    if message.attempt > MOST_ATTEMPTS:
        raise InvalidField("attempts.attempt", f"is {message.attempt}; no run has more than {MOST_ATTEMPTS}")
    return AttemptStatus(
        run_id=message.run_id,
        attempt=message.attempt,
        phase=message.phase,
        pid=message.pid,
        outcome=message.outcome,
        usage=message.usage if message.HasField("usage") else None,
        progress=message.progress,
        resume_number=message.resume_number,
        deployment=message.deployment,
        job=message.job,
        location=message.location,
        requirements=requirements_of(message.requirements),
    )
