"""The asyncio client's connection: the mirror of `connection.py`, inside one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from runyard.client.connection import HANDSHAKE_SECONDS
from runyard.client.errors import ClientClosed
from runyard.common.transport.channel import open_aio_channel
from runyard.common.transport.tls import TlsMaterial, WatchedTls
from runyard.v1.fleet_pb2_grpc import FleetServiceStub
from runyard.v1.launch_pb2_grpc import LaunchServiceStub
from runyard.v1.security_pb2_grpc import SecurityServiceStub

if TYPE_CHECKING:  # these names exist in the type stubs only
    from runyard.v1.fleet_pb2_grpc import FleetServiceAsyncStub
    from runyard.v1.launch_pb2_grpc import LaunchServiceAsyncStub
    from runyard.v1.security_pb2_grpc import SecurityServiceAsyncStub


class AsyncConnection:
    """A channel and its stubs; belongs to the event loop in which it was opened."""

    def __init__(self, address: str, tls: TlsMaterial | None) -> None:
        self.tls = tls
        self.channel = open_aio_channel(address, tls)
        self.launch: LaunchServiceAsyncStub = LaunchServiceStub(self.channel)
        self.fleet: FleetServiceAsyncStub = FleetServiceStub(self.channel)
        self.security: SecurityServiceAsyncStub = SecurityServiceStub(self.channel)
        self._calls = 0
        self._retired = False
        self._unused = asyncio.Event()
        self._unused.set()

    def begin_call(self) -> None:
        """A call uses it from now on."""
        self._calls += 1
        self._unused.clear()

    def end_call(self) -> None:
        """A call is over."""
        self._calls -= 1
        if not self._calls:
            self._unused.set()

    async def close_when_unused(self) -> None:
        """Closes it when its last call is over."""
        await self._unused.wait()
        await self.channel.close()


class AsyncConnections:
    """The newest connection, and those before it that still have calls."""

    def __init__(self, address: str, tls: WatchedTls | None) -> None:
        self._address = address
        self._tls = tls
        self._closed = False
        self._newest: AsyncConnection | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._renewing_for: TlsMaterial | None = None
        self._patient_until = 0.0
        self._old: dict[AsyncConnection, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[AsyncConnection]:
        """A connection for the length of the block; one with new certificates is waited for a moment.

        Raises:
            ClientClosed: After `close`.
        """
        self.current()
        left = self._patient_until - time.monotonic()
        if self._renewing is not None and left > 0:
            await asyncio.wait({self._renewing}, timeout=left)
        connection = self.current()
        connection.begin_call()
        try:
            yield connection
        finally:
            connection.end_call()

    def current(self) -> AsyncConnection:
        """The newest connection that is ready; has one made with new certificates where there are some.

        Raises:
            ClientClosed: After `close`.
        """
        if self._closed:
            raise ClientClosed
        material = self._tls.current() if self._tls else None
        if self._newest is None:
            self._newest = AsyncConnection(self._address, material)
        elif material not in (None, self._newest.tls, self._renewing_for):
            self._renew(material)
        return self._newest

    async def close(self) -> None:
        """Closes all connections, and ends their calls."""
        self._closed = True
        tasks = [*self._old.values(), *([self._renewing] if self._renewing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        newest, self._newest = self._newest, None
        for connection in (*self._old, *([newest] if newest else [])):
            await connection.channel.close()

    def _renew(self, material: TlsMaterial | None) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        self._renewing_for = material
        self._patient_until = time.monotonic() + HANDSHAKE_SECONDS
        self._renewing = asyncio.create_task(self._replace(AsyncConnection(self._address, material)))

    async def _replace(self, coming: AsyncConnection) -> None:
        try:
            await coming.channel.channel_ready()
        except asyncio.CancelledError:
            await coming.channel.close()
            raise
        old, self._newest = self._newest, coming
        self._renewing = self._renewing_for = None
        if old is not None:
            self._old[old] = asyncio.create_task(self._retire(old))

    async def _retire(self, old: AsyncConnection) -> None:
        await old.close_when_unused()
        del self._old[old]
