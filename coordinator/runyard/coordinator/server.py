"""The coordinator process: assembles its parts, serves until a signal, and stops them in order."""

import asyncio
import contextlib
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2

from runyard.common.transport.address import parse_address
from runyard.coordinator.audit.audit_file import AuditFile
from runyard.coordinator.auth.server_credentials import ClientCertificates, server_credentials
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.core.events.on_config_change import on_config_change
from runyard.coordinator.grpc.join import join_server
from runyard.coordinator.grpc.listening import (
    SERVER_OPTIONS,
    TLS_OPTIONS,
    listen,
)
from runyard.coordinator.routing_config.reload import (
    WITHOUT_FILE,
    RoutingReload,
    Version,
    read_version,
    warn_of,
)
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.security import Security, open_security
from runyard.coordinator.services import SERVICES, add_reflection, make_server
from runyard.coordinator.store.engine import StoreError
from runyard.coordinator.store.store import Store, StoreFull

log = structlog.get_logger("runyard.coordinator")


async def serve(settings: CoordinatorSettings) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure.

    Raises:
        StoreError: The state directory cannot be used.
        InvalidYamlFile: The routing file cannot be used.
        InvalidTlsFiles: The certificates cannot be used.
        AuthorityError: The directory of the authority cannot be used.
    """
    routing = read_version(settings.routing) if settings.routing else WITHOUT_FILE
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    store = Store(settings.state_directory)
    audit: AuditFile | None = None
    try:
        runtime = Runtime(store, settings.lease_settings(), settings.retention(), settings.client_clusters())
        audit = _open_audit(settings.audit_path())
        security = open_security(settings, runtime, audit)
        options = SERVER_OPTIONS if settings.tls is None else (*SERVER_OPTIONS, *TLS_OPTIONS)
        server, status = make_server(runtime, security, options=options)
        if settings.reflection:
            add_reflection(server)
        address = _listen(server, settings)
        joining = _JoinServer(settings, security)
        runtime.start()
        if security.enrolment is not None:
            runtime.run_in_background(security.enrolment.clean_up)
        await _apply_routing(routing, settings.routing, runtime)
        await server.start()
        await joining.start()
        for service in ("", *SERVICES):
            await status.set(service, health_pb2.HealthCheckResponse.SERVING)
        log.info("ready", address=address, version=version("runyard"), runs=len(runtime.fleet.runs))
        failed = await _wait_for_end(stopping, runtime)
        await joining.stop()
        await _stop(server, status, runtime, settings.shutdown_grace)
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


async def _apply_routing(version: Version, file: Path | None, runtime: Runtime) -> None:
    """Apply the routing rules, and apply them again whenever the file changes."""
    config = version.routing.config
    warn_of(version.routing)
    with contextlib.suppress(StoreFull):  # the runs keep waiting by their old rules
        await runtime.decide(lambda fleet, at: on_config_change(fleet, at, config))
    if file is not None:
        reload = RoutingReload(file, runtime, version)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.request)
        runtime.run_in_background(reload.follow)


def _listen(server: grpc.aio.Server, settings: CoordinatorSettings) -> str:
    files = settings.tls_files()
    credentials = None if files is None else server_credentials(files, ClientCertificates.REQUIRED)
    return listen(server, parse_address(settings.listen, "listen"), credentials)


class _JoinServer:
    """The separate server where nodes join by token, if the settings name its address."""

    def __init__(self, settings: CoordinatorSettings, security: Security) -> None:
        self._server: grpc.aio.Server | None = None
        files = settings.tls_files()
        if settings.join_listen is None or security.enrolment is None or files is None:
            return
        status = health.aio.HealthServicer()
        self._server = join_server(security.enrolment, status, security.throttle, security.audit)
        credentials = server_credentials(files, ClientCertificates.NOT_REQUESTED)
        address = listen(self._server, parse_address(settings.join_listen, "join_listen"), credentials)
        log.info("nodes_may_join", address=address)

    async def start(self) -> None:
        if self._server is not None:
            await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)


async def _wait_for_end(stopping: asyncio.Event, runtime: Runtime) -> bool:
    """Wait for a signal or a failure; True for a failure."""
    signalled = asyncio.create_task(stopping.wait())
    waiting: set[asyncio.Future[Any]] = {signalled, runtime.fatal}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if runtime.fatal.done():
        log.critical("failed", exc_info=runtime.fatal.result())
        return True
    return False


async def _stop(
    server: grpc.aio.Server, status: health.aio.HealthServicer, runtime: Runtime, grace: float
) -> None:
    log.info("stopping")
    await status.enter_graceful_shutdown()
    runtime.end_sessions()
    await server.stop(grace)
    await runtime.stop()
    log.info("stopped")
