"""A coordinator with certificates on the test's event loop, and callers of every kind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from coordinator.serving import NO_RECOVERY, SOON, Serving, StubAgent
from harness.certificates import Authority

from runyard.common.security.identity import Identity
from runyard.common.service.settings import TlsSettings
from runyard.common.transport.channel import open_aio_channel
from runyard.common.transport.tls import TlsMaterial
from runyard.coordinator.auth.rates import Rate, RateSettings
from runyard.coordinator.auth.server_credentials import ClientCertificates, server_credentials
from runyard.coordinator.config import AccessSettings, ClientAccess, CoordinatorSettings
from runyard.coordinator.core.events.on_tick import Retention
from runyard.coordinator.grpc.listening import (
    SERVER_OPTIONS,
    TLS_OPTIONS,
    Options,
)
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.security import Security, open_security
from runyard.coordinator.services import add_reflection, make_server
from runyard.coordinator.store.store import Store

ENDLESS = 0.5
"""Seconds after which an admitted call counts as one that never ends."""


class Secured:
    """The coordinator, its address and its authority."""

    def __init__(self, runtime: Runtime, security: Security, address: str, authority: Authority) -> None:
        self.runtime = runtime
        self.security = security
        self.address = address
        self.authority = authority
        self.agents: dict[str, StubAgent] = {}
        self._opened: list[Serving] = []

    def as_(self, identity: Identity) -> Serving:
        """Stubs of a caller with a certificate of our authority."""
        return self.with_(self.authority.material(identity.uri))

    def with_(self, material: TlsMaterial) -> Serving:
        """Stubs of a caller with given certificates."""
        opened = Serving(self.runtime, self.address, open_aio_channel(self.address, material))
        self._opened.append(opened)
        return opened

    async def close(self) -> None:
        """Close all stubs."""
        for opened in self._opened:
            await opened.close()


@contextlib.asynccontextmanager
async def secured(
    folder: Path, *, bound: dict[str, tuple[str, ...]] | None = None, options: Options = ()
) -> AsyncIterator[Secured]:
    """A coordinator on a loopback port.

    Args:
        folder: For its state and its certificates.
        bound: Clients that are bound to clusters.
        options: Of the server, before those that it has; of two of a name gRPC takes the first.
    """
    authority = Authority()
    files = authority.coordinator(folder / "tls")
    assert files.certificate is not None
    assert files.key is not None
    clients = {name: ClientAccess(clusters=clusters) for name, clusters in (bound or {}).items()}
    settings = CoordinatorSettings(
        state_directory=folder / "state",
        tls=TlsSettings(authority=files.authority, certificate=files.certificate, key=files.key),
        access=AccessSettings(clients=clients),
        rates=RateSettings(failed_authentication=Rate(per_second=1_000.0, burst=1_000)),
    )
    store = Store(settings.state_directory)
    runtime = Runtime(store, NO_RECOVERY, Retention(), settings.client_clusters())
    security = open_security(settings, runtime)
    server, _ = make_server(runtime, security, options=(*options, *SERVER_OPTIONS, *TLS_OPTIONS))
    add_reflection(server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files, ClientCertificates.REQUIRED))
    runtime.start()
    await server.start()
    opened = Secured(runtime, security, f"127.0.0.1:{port}", authority)
    try:
        yield opened
    finally:
        await opened.close()
        await server.stop(0)
        await asyncio.wait_for(runtime.stop(), SOON)
        store.close()


async def code_of(channel: grpc.aio.Channel, method: str, seconds: float = SOON) -> grpc.StatusCode:
    """Return the status of a call with an empty request.

    Args:
        channel: Whose call it is.
        method: Its whole name.
        seconds: After how many it ends with DEADLINE_EXCEEDED.
    """
    # Fits methods of all kinds. A caller that sends a stream may get INTERNAL: gRPC's asyncio client forgets
    # why a call was refused if it was sending at that moment.
    call: Any = channel.unary_stream(method)
    try:
        async for _ in call(b"", timeout=seconds):
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
