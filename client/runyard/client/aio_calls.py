"""How the asyncio client calls: the mirror of `calls.py`."""

# ruff: noqa: ASYNC109 - these timeouts are deadlines that travel with the call, so the coordinator knows them too

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from runyard.client.aio_connection import AsyncConnection, AsyncConnections
from runyard.client.errors import from_rpc_error
from runyard.client.repetition import RepeatedCall
from runyard.client.requests import STREAM_TIMEOUT_SECONDS, require_positive
from runyard.common.transport.address import parse_address, require_local
from runyard.common.transport.tls import TlsFiles, WatchedTls

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

if TYPE_CHECKING:  # gRPC's types take parameters in their stubs only
    UnaryMethod = Callable[[AsyncConnection], grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT]]
    PiecesMethod = Callable[[AsyncConnection], grpc.aio.StreamUnaryMultiCallable[RequestT, ResponseT]]
    StreamMethod = Callable[[AsyncConnection], grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT]]


class AsyncCalls:
    """Every method means what it means in `Calls`."""

    def __init__(self, address: str, timeout: float, tls: TlsFiles | None) -> None:
        """See `Client`."""
        target = parse_address(address)
        if tls is None:
            require_local(target, "dial")
        self.address = str(target)
        self.timeout = require_positive(timeout)
        self._connections = AsyncConnections(self.address, WatchedTls(tls) if tls is not None else None)

    async def close(self) -> None:
        """See `Calls.close`."""
        await self._connections.close()

    def begin(self) -> AsyncConnection:
        """A connection for a call that begins with it; see `AsyncConnection.end_call`."""
        connection = self._connections.current()
        connection.begin_call()
        return connection

    async def once(
        self,
        name: str,
        method: UnaryMethod[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
    ) -> ResponseT:
        """See `Calls.once`."""
        seconds = self.timeout if timeout is None else require_positive(timeout)
        try:
            async with self._connections.use() as connection:
                return await method(connection)(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address, name) from error

    async def stream(
        self,
        name: str,
        method: StreamMethod[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
    ) -> AsyncIterator[ResponseT]:
        """See `Calls.stream`."""
        seconds = STREAM_TIMEOUT_SECONDS if timeout is None else require_positive(timeout)
        async with self._connections.use() as connection:
            call = method(connection)(request, timeout=seconds)
            try:
                async for message in call:
                    yield message
            except grpc.RpcError as error:
                raise from_rpc_error(error, self.address, name) from error
            finally:
                call.cancel()

    def repeated(self, name: str, timeout: float | None) -> RepeatedCall:
        """See `Calls.repeated`."""
        seconds = self.timeout if timeout is None else require_positive(timeout)
        return RepeatedCall(name, self.address, seconds, time.monotonic())

    async def repeat(
        self, call: RepeatedCall, method: UnaryMethod[RequestT, ResponseT], request: RequestT
    ) -> ResponseT:
        """See `Calls.repeat`."""
        return await self._try(call, lambda to, seconds: method(to)(request, timeout=seconds))

    async def repeat_pieces(
        self, call: RepeatedCall, method: PiecesMethod[RequestT, ResponseT], pieces: Sequence[RequestT]
    ) -> ResponseT:
        """See `Calls.repeat_pieces`."""
        return await self._try(call, lambda to, seconds: method(to)(iter(pieces), timeout=seconds))

    async def _try(
        self, call: RepeatedCall, once: Callable[[AsyncConnection, float], Awaitable[ResponseT]]
    ) -> ResponseT:
        while True:
            try:
                async with self._connections.use() as connection:
                    return await once(connection, call.remaining(time.monotonic()))
            except grpc.RpcError as error:
                await asyncio.sleep(call.pause_after(error, time.monotonic()))
