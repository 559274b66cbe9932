"""Puts the coordinator together, serves until it is told to stop, and takes it apart in order."""

import asyncio
import contextlib
import signal
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runyard.client.address import HostPort, UnixSocket, is_local, parse_address
from runyard.client.channel import MAX_MESSAGE_BYTES
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.core.policy_change import on_policy
from runyard.coordinator.routing_file.reload import (
    WITHOUT_FILE,
    RoutingReload,
    Version,
    read_version,
    warn_of,
)
from runyard.coordinator.rpc.agents import AgentService
from runyard.coordinator.rpc.fleet import FleetService
from runyard.coordinator.rpc.launch import LaunchService
from runyard.coordinator.rpc.logs import LogRelay
from runyard.coordinator.security.audit import UNAUDITED, Audit
from runyard.coordinator.security.audit_file import AuditFile
from runyard.coordinator.shell import Shell
from runyard.coordinator.store.engine import StoreError
from runyard.coordinator.store.store import Store, StoreFull
from runyard.v1 import agent_pb2, agent_pb2_grpc, fleet_pb2, fleet_pb2_grpc, launch_pb2, launch_pb2_grpc

log = structlog.get_logger("runyard.coordinator")

SERVER_OPTIONS = (
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
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (launch_pb2, "LaunchService"),
        (fleet_pb2, "FleetService"),
        (agent_pb2, "AgentService"),
    )
)


async def serve(settings: CoordinatorSettings) -> int:
    """Serves until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 after an orderly stop, 1 after a failure.

    Raises:
        StoreError: The state directory cannot be used.
        RoutingFileError: The routing file cannot be used.
    """
    routing = read_version(settings.routing) if settings.routing else WITHOUT_FILE
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    store = Store(settings.state_directory)
    audit: AuditFile | None = None
    try:
        shell = Shell(store, settings.lease_policy(), settings.retention())
        audit = _open_audit(settings.audit_path())
        server, status = assemble(shell, audit)
        address = _listen(server, settings)
        shell.start()
        await _route_by(routing, settings.routing, shell)
        await server.start()
        for service in ("", *SERVICES):
            await status.set(service, health_pb2.HealthCheckResponse.SERVING)
        log.info("ready", address=address, version=version("runyard"), runs=len(shell.fleet.runs))
        failed = await _until(stopping, shell)
        await _stop(server, status, shell, settings.shutdown_grace)
        return 1 if failed else 0
    finally:
        store.close()
        if audit is not None:
            audit.close()


def _open_audit(path: Path) -> AuditFile:
    try:
        return AuditFile(path)
    except OSError as error:
        raise StoreError(
            f"audit {path} cannot be written ({error.strerror}); make it writable for this user, "
            "or choose another"
        ) from error


async def _route_by(version: Version, file: Path | None, shell: Shell) -> None:
    """Has waiting runs placed by the rules of today, and by those to come when the file changes."""
    policy = version.routing.policy
    warn_of(version.routing)
    with contextlib.suppress(StoreFull):  # then they wait by the rules of yesterday
        await shell.decide(lambda fleet, at: on_policy(fleet, at, policy))
    if file is not None:
        reload = RoutingReload(file, shell, version)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.ask)
        shell.attend(reload.follow)


def assemble(shell: Shell, audit: Audit = UNAUDITED) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """All services on a server that listens nowhere yet, and the status that they show."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    logs = LogRelay(shell)
    launch_pb2_grpc.add_LaunchServiceServicer_to_server(LaunchService(shell, logs, audit), server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(FleetService(shell, audit), server)
    agent_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(shell, logs), server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, status


def _listen(server: grpc.aio.Server, settings: CoordinatorSettings) -> str:
    address = parse_address(settings.listen, "listen")
    if not is_local(address):
        log.warning("insecure", address=str(address), risk="anyone who reaches this address can run commands")
    if isinstance(address, UnixSocket):
        _clear_away_dead_socket(address)
    try:
        port = server.add_insecure_port(str(address))
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


async def _until(stopping: asyncio.Event, shell: Shell) -> bool:
    """Waits for the end; True if it is a failure."""
    told = asyncio.create_task(stopping.wait())
    waiting: set[asyncio.Future[Any]] = {told, shell.fatal}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if shell.fatal.done():
        log.critical("failed", exc_info=shell.fatal.result())
        return True
    return False


async def _stop(
    server: grpc.aio.Server, status: health.aio.HealthServicer, shell: Shell, grace: float
) -> None:
    log.info("stopping")
    await status.enter_graceful_shutdown()
    shell.say_goodbye()
    await server.stop(grace)
    await shell.stop()
    log.info("stopped")
