"""The coordinator's gRPC server: all services behind the gate."""

from collections.abc import Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runyard.coordinator.grpc.agents import AgentService
from runyard.coordinator.grpc.fleet import FleetService
from runyard.coordinator.grpc.gate import Gate
from runyard.coordinator.grpc.launch import LaunchService
from runyard.coordinator.grpc.listening import SERVER_OPTIONS, Options
from runyard.coordinator.grpc.log_relay import LogRelay
from runyard.coordinator.grpc.security import SecurityService
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.security import Security
from runyard.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    launch_pb2,
    launch_pb2_grpc,
    security_pb2,
    security_pb2_grpc,
)

MAX_CALLS: Final = 50_000
"""Maximum number of concurrent calls; each agent holds one. Further calls get RESOURCE_EXHAUSTED."""

_FILES: Final[Sequence[tuple[Any, str]]] = (
    (launch_pb2, "LaunchService"),
    (fleet_pb2, "FleetService"),
    (agent_pb2, "AgentService"),
    (security_pb2, "SecurityService"),
)

SERVICES: Final = tuple(file.DESCRIPTOR.services_by_name[name].full_name for file, name in _FILES)


def make_server(
    runtime: Runtime, security: Security, *, options: Options = SERVER_OPTIONS
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """Return a server with all services behind the gate, and its health status. It does not listen yet."""
    audit = security.audit
    gate = Gate(security.authenticator, security.throttle, audit)
    server = grpc.aio.server(options=options, interceptors=(gate,), maximum_concurrent_rpcs=MAX_CALLS)
    logs = LogRelay(runtime)
    launch_pb2_grpc.add_LaunchServiceServicer_to_server(LaunchService(runtime, logs, audit), server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(FleetService(runtime, audit), server)
    agent_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(runtime, logs), server)
    security_service = SecurityService(security.enrolment, security.revoker, audit)
    security_pb2_grpc.add_SecurityServiceServicer_to_server(security_service, server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    return server, status


def add_reflection(server: grpc.aio.Server) -> None:
    """Add gRPC reflection to a server. The gate decides who may call it."""
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
