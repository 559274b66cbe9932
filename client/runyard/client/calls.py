"""Calls of the coordinator: once, with retries inside one deadline, or as a stream."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc

from runyard.client.connection import Connection, Connections, Lease
from runyard.client.errors import CoordinatorUnreachable, RunyardError, from_rpc_error
from runyard.client.requests import STREAM_TIMEOUT_SECONDS, require_positive
from runyard.common.transport.address import parse_address, require_local
from runyard.common.transport.channel import RETRY_AFTER
from runyard.common.transport.tls import TlsFiles, WatchedTls

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

if TYPE_CHECKING:  # gRPC's types take parameters in their stubs only
    UnaryMethod = Callable[[Connection], grpc.UnaryUnaryMultiCallable[RequestT, ResponseT]]
    PiecesMethod = Callable[[Connection], grpc.StreamUnaryMultiCallable[RequestT, ResponseT]]
    StreamMethod = Callable[[Connection], grpc.UnaryStreamMultiCallable[RequestT, ResponseT]]


class Calls:
    """Calls on the newest connection; failures become `RunyardError`."""

    def __init__(self, address: str, timeout: float, tls: TlsFiles | None) -> None:
        """See `Client`."""
        target = parse_address(address)
        if tls is None:
            require_local(target, "dial")
        self.address = str(target)
        self.timeout = require_positive(timeout)
        self._connections = Connections(self.address, WatchedTls(tls) if tls is not None else None)

    def close(self) -> None:
        """Close this process's connections, and end their calls."""
        self._connections.close()

    def lease(self) -> Lease:
        """Lease a connection until the lease is ended."""
        return self._connections.lease()

    def once(
        self,
        name: str,
        method: UnaryMethod[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
    ) -> ResponseT:
        """Call a method once.

        Args:
            name: Name of the method, for errors.
            method: Returns the stub of the method.
            request: The message to send.
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
        """Yield the messages of a stream; the call ends when the caller stops reading.

        Args:
            name: Name of the method, for errors.
            method: Returns the stub of the method.
            request: The message to send.
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
        """Start the clock of a call that is repeated while the coordinator is unavailable."""
        seconds = self.timeout if timeout is None else require_positive(timeout)
        return RepeatedCall(name, self.address, seconds, time.monotonic())

    def repeat(
        self, call: RepeatedCall, method: UnaryMethod[RequestT, ResponseT], request: RequestT
    ) -> ResponseT:
        """Call a method until it answers, or the time of `call` is up."""
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


class RepeatedCall:
    """An idempotent call that is repeated while the coordinator is unavailable, inside one deadline.

    If calls come too often, the coordinator says when to call again, and the call waits that long.

    The pauses are drawn evenly from a window that doubles ("full jitter"), so that clients of the
    same coordinator do not return all at once.
    """

    def __init__(
        self,
        method: str,
        address: str,
        timeout: float,
        now: float,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Start the clock.

        Args:
            method: Name of the RPC.
            address: The coordinator's address.
            timeout: Seconds for all tries together.
            now: Monotonic time in seconds.
            draw: Draws a number between two bounds.
        """
        self._method = method
        self._address = address
        self._deadline = now + timeout
        self._draw = draw
        self._window = FIRST_PAUSE_SECONDS
        self._unavailable: CoordinatorUnreachable | None = None

    def remaining(self, now: float) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self._deadline - now)

    def pause_after(self, error: grpc.RpcError, now: float) -> float:
        """Seconds to wait before the next try.

        Raises:
            RunyardError: The call is not to be repeated, because of its status or because time is up.
        """
        failure = from_rpc_error(error, self._address, self._method)
        requested = _requested_pause(error)
        if requested is not None and requested < self.remaining(now):
            return min(requested + self._draw(0.0, self._window), self.remaining(now))
        may_repeat = error.code() == grpc.StatusCode.UNAVAILABLE
        if not isinstance(failure, CoordinatorUnreachable) and not may_repeat:
            raise failure from error
        if isinstance(failure, CoordinatorUnreachable) and may_repeat:
            self._unavailable = failure
        pause = self._draw(0.0, self._window)
        if not may_repeat or pause >= self.remaining(now):
            raise self._clearer_failure(failure) from error
        self._window = min(2 * self._window, LONGEST_PAUSE_SECONDS)
        return pause

    def _clearer_failure(self, last: RunyardError) -> RunyardError:
        """An earlier "connection refused" says more than the "deadline exceeded" of a last, short try."""
        return self._unavailable or last


def _requested_pause(error: grpc.RpcError) -> float | None:
    """Seconds after which the coordinator wants the next call; None if it does not say."""
    trailing: Iterable[tuple[str, str | bytes]] = getattr(error, "trailing_metadata", lambda: None)() or ()
    for key, value in trailing:
        if key == RETRY_AFTER:
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            return int(text) / 1e3 if text.isdecimal() else None
    return None
