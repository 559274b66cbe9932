"""How the blocking client calls: once, again and again, or for a stream. `aio_calls.py` is its mirror."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc

from runyard.client.connection import Connection, Connections, Lease
from runyard.client.errors import from_rpc_error
from runyard.client.repetition import RepeatedCall
from runyard.client.requests import STREAM_TIMEOUT_SECONDS, require_positive
from runyard.common.transport.address import parse_address, require_local
from runyard.common.transport.tls import TlsFiles, WatchedTls

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

if TYPE_CHECKING:  # gRPC's types take parameters in their stubs only
    UnaryMethod = Callable[[Connection], grpc.UnaryUnaryMultiCallable[RequestT, ResponseT]]
    PiecesMethod = Callable[[Connection], grpc.StreamUnaryMultiCallable[RequestT, ResponseT]]
    StreamMethod = Callable[[Connection], grpc.UnaryStreamMultiCallable[RequestT, ResponseT]]


class Calls:
    """Calls the coordinator on the newest connection, and turns failures into `RunyardError`."""

    def __init__(self, address: str, timeout: float, tls: TlsFiles | None) -> None:
        """See `Client`."""
        target = parse_address(address)
        if tls is None:
            require_local(target, "dial")
        self.address = str(target)
        self.timeout = require_positive(timeout)
        self._connections = Connections(self.address, WatchedTls(tls) if tls is not None else None)

    def close(self) -> None:
        """Closes this process's connections, and ends their calls."""
        self._connections.close()

    def lease(self) -> Lease:
        """A connection, for as long as the lease is not ended."""
        return self._connections.lease()

    def once(
        self,
        name: str,
        method: UnaryMethod[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
    ) -> ResponseT:
        """Calls a method once.

        Args:
            name: The method's, for errors.
            method: Gives its stub.
            request: What to say.
            timeout: Seconds. None: the client's.
        """
        seconds = self.timeout if timeout is None else require_positive(timeout)
        try:
            with self._connections.use() as connection:
                return method(connection)(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address, name) from error

    def stream(
        self,
        name: str,
        method: StreamMethod[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
    ) -> Iterator[ResponseT]:
        """Gives the messages of a stream; ends the call when the caller stops to read.

        Args:
            name: The method's, for errors.
            method: Gives its stub.
            request: What to say.
            timeout: Seconds for everything. None: a day.
        """
        seconds = STREAM_TIMEOUT_SECONDS if timeout is None else require_positive(timeout)
        with self._connections.use() as connection:
            call = method(connection)(request, timeout=seconds)
            try:
                yield from call
            except grpc.RpcError as error:
                raise from_rpc_error(error, self.address, name) from error
            finally:
                call.cancel()

    def repeated(self, name: str, timeout: float | None) -> RepeatedCall:
        """Starts the clock of a call that is repeated while the coordinator is unavailable."""
        seconds = self.timeout if timeout is None else require_positive(timeout)
        return RepeatedCall(name, self.address, seconds, time.monotonic())

    def repeat(
        self, call: RepeatedCall, method: UnaryMethod[RequestT, ResponseT], request: RequestT
    ) -> ResponseT:
        """Calls a method until it answers, or the time of `call` is up."""
        return self._try(call, lambda to, seconds: method(to)(request, timeout=seconds))

    def repeat_pieces(
        self, call: RepeatedCall, method: PiecesMethod[RequestT, ResponseT], pieces: Sequence[RequestT]
    ) -> ResponseT:
        """As `repeat`, of a method that takes a stream: all of it each time."""
        return self._try(call, lambda to, seconds: method(to)(iter(pieces), timeout=seconds))

    def _try(self, call: RepeatedCall, once: Callable[[Connection, float], ResponseT]) -> ResponseT:
        while True:
            try:
                with self._connections.use() as connection:
                    return once(connection, call.remaining(time.monotonic()))
            except grpc.RpcError as error:
                time.sleep(call.pause_after(error, time.monotonic()))
