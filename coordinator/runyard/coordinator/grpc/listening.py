"""The gRPC servers: their limits, their services behind the gate, and the addresses that they listen on."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runyard.common.transport.address import Address, HostPort, UnixSocket
from runyard.common.transport.channel import MAX_MESSAGE_BYTES
from runyard.coordinator.auth.setup import Security
from runyard.coordinator.grpc.agents import AgentService
from runyard.coordinator.grpc.fleet import FleetService
from runyard.coordinator.grpc.gate import Gate
from runyard.coordinator.grpc.launch import LaunchService
from runyard.coordinator.grpc.logs import LogRelay
from runyard.coordinator.grpc.security import SecurityService
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.engine import StoreError
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

log = structlog.get_logger("runyard.coordinator")

Options = tuple[tuple[str, int], ...]

MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Largest message that anybody may send: a spec of 4 MiB (rpc/requests.py), or all attempts of a node with
10,000 slots, the most that its settings allow. Every stream of a connection may occupy as much memory,
whoever opened it; so job snapshots come in pieces (rpc/uploads.py)."""

SERVER_OPTIONS: Final[Options] = (
    # A frozen peer still acknowledges TCP: without http2.ping_timeout_ms (60 s) it is noticed after 65 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Agents ping every 15 s on silent streams; by default a server takes that for an attack.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # After a restart all agents come back at once; by default a thousand may wait and the rest is cancelled.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # What may arrive of a stream that is not read. By default gRPC lets it grow with the speed of the line,
    # to 16 MiB and more, each in memory. This is enough for 5 MB/s at a round trip of 50 ms.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    # Nobody sends us metadata of his own; gRPC's few headers have some hundred bytes. Between the two limits
    # calls are refused by chance.
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # A client has a stream for each thread that waits, and one for each log that it follows; an agent has its
    # session, and 32 logs at most.
    ("grpc.max_concurrent_streams", 200),
)

TLS_OPTIONS: Final[Options] = (
    # Whoever connects and says nothing is gone after ten seconds rather than two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # So that an authority that was taken back is not trusted for longer. gRPC spreads it by a tenth to either
    # side. Agents and clients connect anew before the grace is over.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)

MOST_CALLS: Final = 50_000
"""Calls at once, of which each agent has one for as long as it lives; more are told RESOURCE_EXHAUSTED."""

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
    """All services behind the gate, on a server that listens nowhere yet, and the status that they show."""
    audit = security.audit
    gate = Gate(security.admission, security.throttle, audit)
    server = grpc.aio.server(options=options, interceptors=(gate,), maximum_concurrent_rpcs=MOST_CALLS)
    logs = LogRelay(runtime)
    launch_pb2_grpc.add_LaunchServiceServicer_to_server(LaunchService(runtime, logs, audit), server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(FleetService(runtime, audit), server)
    agent_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(runtime, logs), server)
    security_service = SecurityService(security.enrolment, security.expulsion, audit)
    security_pb2_grpc.add_SecurityServiceServicer_to_server(security_service, server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    return server, status


def add_reflection(server: grpc.aio.Server) -> None:
    """Has the server tell what it serves. Whom it tells, the gate decides."""
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)


def listen(server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None) -> str:
    """Has a server listen, and gives the address with the port that it got.

    Args:
        server: Not started yet.
        address: Where to listen.
        credentials: What is shown there and asked for. None: plain text.

    Raises:
        StoreError: The address is in use, or not this machine's.
    """
    if isinstance(address, UnixSocket):
        _clear_away_dead_socket(address)
    try:
        if credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise StoreError(f"cannot listen on {address}: {error}; is another coordinator there?") from error
    return str(HostPort(address.host, port)) if isinstance(address, HostPort) else str(address)


def _clear_away_dead_socket(address: UnixSocket) -> None:
    """Deletes the socket of a coordinator that was killed; nothing else that may be there."""
    path = Path(address.path)
    if not path.exists():
        return
    if not path.is_socket():
        raise StoreError(f"cannot listen on {address}: the file there is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot listen on {address}: {error.strerror or error}") from error
        else:
            raise StoreError(f"cannot listen on {address}: it is in use; is another coordinator there?")
