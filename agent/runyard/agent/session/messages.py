"""Messages of a session that describe the node."""

from collections.abc import Mapping

from runyard.agent.core.effects import Reject, Report
from runyard.agent.core.model import AttemptKey
from runyard.agent.node.capacity import NodeResources
from runyard.agent.node.facts import NodeFacts, NodeLoad, WorkerUsage
from runyard.agent.runtime.agent import Agent
from runyard.agent.session.conversions import (
    facts_of,
    load_of,
    offer_of,
    pressure_of,
    rejection_of,
    status_of,
    warm_server_of,
)
from runyard.agent.session.identity import SessionIdentity
from runyard.common.defaults import PROTOCOL_VERSION
from runyard.common.protobuf_time import to_duration
from runyard.v1 import agent_pb2, fleet_pb2

MOST_WARM_SERVERS = 64
"""Number of warm servers that a message can list: `runyard.v1.Heartbeat`."""


def hello(
    agent: Agent, identity: SessionIdentity, facts: NodeFacts, usages: Mapping[AttemptKey, WorkerUsage]
) -> agent_pb2.SessionRequest:
    """Build the first message of a session."""
    settings = agent.settings
    message = agent_pb2.Hello(
        node_id=settings.node_id,
        cluster=settings.cluster,
        installation_id=identity.installation.id,
        instance_id=identity.instance_id,
        boot_id=identity.boot_id,
        protocol_min=PROTOCOL_VERSION,
        protocol_max=PROTOCOL_VERSION,
        offer=offer_of(agent.resources.current),
        facts=facts_of(facts),
        attempts=_statuses(agent, usages),
        last_epoch=identity.installation.last_epoch,
        warm_servers=_warm_servers(agent),
        pressures=[pressure_of(each) for each in agent.pressures.all()],
    )
    return agent_pb2.SessionRequest(hello=message)


def heartbeat(
    agent: Agent,
    sequence: int,
    load: NodeLoad,
    usages: Mapping[AttemptKey, WorkerUsage],
    resources: NodeResources | None,
) -> agent_pb2.SessionRequest:
    """Build a heartbeat.

    Args:
        agent: The agent.
        sequence: Number of the heartbeat in its session.
        load: Current load of the machine.
        usages: Resources that live workers use.
        resources: Resources of the node; None if the coordinator has them.
    """
    message = agent_pb2.Heartbeat(
        sequence=sequence,
        load=load_of(load),
        attempts=_statuses(agent, usages),
        offer=offer_of(resources) if resources else None,
        warm_servers=_warm_servers(agent),
        pressures=[pressure_of(each) for each in agent.pressures.all()],
    )
    return agent_pb2.SessionRequest(heartbeat=message)


def goodbye(agent: Agent) -> agent_pb2.SessionRequest:
    """Build the last message of a session."""
    if agent.runtime.is_closing:
        message = agent_pb2.AgentGoodbye(reason="the machine is shutting down")
    else:
        message = agent_pb2.AgentGoodbye(
            reason="the agent is shutting down; its workers keep running",
            expect_back_within=to_duration(agent.settings.restart_grace),
        )
    return agent_pb2.SessionRequest(goodbye=message)


def report(about: Report | Reject) -> agent_pb2.SessionRequest:
    """Build the report of an attempt or of a rejection."""
    if isinstance(about, Reject):
        message = agent_pb2.AttemptReport(rejection=rejection_of(about))
    else:
        message = agent_pb2.AttemptReport(status=status_of(about.attempt))
    return agent_pb2.SessionRequest(report=message)


def _statuses(agent: Agent, usages: Mapping[AttemptKey, WorkerUsage]) -> list[agent_pb2.AttemptStatus]:
    return [status_of(held, usages.get(held.key)) for held in agent.runtime.attempts()]


def _warm_servers(agent: Agent) -> list[fleet_pb2.WarmServer]:
    servers = [each for driver in agent.drivers.warm() for each in driver.warm_servers.snapshot()]
    return [warm_server_of(each) for each in servers[:MOST_WARM_SERVERS]]
