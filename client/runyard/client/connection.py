"""The blocking client's connection: one for each process, and another when its certificates have changed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from runyard.client.errors import ClientClosed
from runyard.client.health import CHECK_METHOD, CHECK_REQUEST
from runyard.common.transport.channel import open_channel
from runyard.common.transport.tls import TlsMaterial, WatchedTls
from runyard.v1.fleet_pb2_grpc import FleetServiceStub
from runyard.v1.launch_pb2_grpc import LaunchServiceStub
from runyard.v1.security_pb2_grpc import SecurityServiceStub

if TYPE_CHECKING:  # this name exists in the type stubs only
    from grpc import _CallFuture

HANDSHAKE_SECONDS: Final = 5.0
"""For how long calls wait for a connection with new certificates, from when it was opened. Later calls use
the old one until the new one is ready."""

_UNANSWERED: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


@dataclass(frozen=True, eq=False)
class Connection:
    """A channel and its stubs."""

    channel: grpc.Channel
    tls: TlsMaterial | None
    launch: LaunchServiceStub
    fleet: FleetServiceStub
    security: SecurityServiceStub

    @classmethod
    def to(cls, address: str, tls: TlsMaterial | None) -> Connection:
        """Opens one, which connects when it is first used."""
        channel = open_channel(address, tls)
        return cls(
            channel,
            tls,
            LaunchServiceStub(channel),
            FleetServiceStub(channel),
            SecurityServiceStub(channel),
        )


class Coming:
    """A connection with new certificates, which is ready as soon as the coordinator answers on it.

    gRPC can be asked for a channel's state as well, but with a thread that fails loudly when the channel is
    closed meanwhile, and leaves those waiting who wait for it.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._opened = time.monotonic()
        self._check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = connection.channel.unary_unary(CHECK_METHOD)
        self._answer = self._ask()

    def wait(self) -> None:
        """Waits for the answer, or until patience is over, or the channel is closed."""
        left = max(0.0, self._opened + HANDSHAKE_SECONDS - time.monotonic())
        with contextlib.suppress(grpc.FutureTimeoutError):
            self._answer.exception(left)

    def is_ready(self) -> bool:
        """True if the coordinator has answered, with any status."""
        return self._answer.done() and self._answer.code() not in _UNANSWERED

    def ask_again(self) -> None:
        """Ask again if no answer came."""
        if self._answer.done() and not self.is_ready():
            self._answer = self._ask()

    def _ask(self) -> _CallFuture[bytes]:
        return self._check.future(CHECK_REQUEST, timeout=HANDSHAKE_SECONDS, wait_for_ready=True)


class Connections:
    """The connections of each process that uses a client: after a fork the child has its own.

    A parent's stay where they are: the fork may have caught another thread in the middle of something, and
    to destroy the parent's channel in the child could hang.
    """

    def __init__(self, address: str, tls: WatchedTls | None) -> None:
        self._address = address
        self._tls = tls
        self._closed = False
        self._by_pid: dict[int, _OwnConnections] = {}

    @contextlib.contextmanager
    def use(self) -> Iterator[Connection]:
        """A connection for the length of the block.

        Raises:
            ClientClosed: After `close`.
        """
        lease = self.lease()
        try:
            yield lease.connection
        finally:
            lease.end()

    def lease(self) -> Lease:
        """As `use`, until the lease is ended."""
        if self._closed:
            raise ClientClosed
        return self._own().lease()

    def close(self) -> None:
        """Closes this process's connections, and ends their calls."""
        self._closed = True
        self._own().close()

    def _own(self) -> _OwnConnections:
        pid = os.getpid()
        own = self._by_pid.get(pid)
        return own or self._by_pid.setdefault(pid, _OwnConnections(self._address, self._tls, pid))


class Lease:
    """The use of a connection by one call: it is not closed before the call ends."""

    def __init__(self, connection: Connection, end: Callable[[Lease], None]) -> None:
        self.connection = connection
        self._end = end

    def end(self) -> None:
        """The call is over; may be said more than once."""
        self._end(self)


class _OwnConnections:
    """One process's: the newest, one that may replace it, and those before it that still have calls."""

    def __init__(self, address: str, tls: WatchedTls | None, pid: int) -> None:
        self._address = address
        self._tls = tls
        self._pid = pid
        # Taken again where a signal handler makes a call in the middle of another.
        self._lock = threading.RLock()
        self._closed = False
        self._newest: Connection | None = None
        self._coming: Coming | None = None
        self._leases: dict[Connection, set[Lease]] = {}
        self._discarded: list[Connection] = []

    def lease(self) -> Lease:
        with self._alone():
            coming = self._awaited()
        if coming is not None:
            coming.wait()
        with self._alone():
            connection = self._current()
            lease = Lease(connection, self._end)
            self._leases.setdefault(connection, set()).add(lease)
            return lease

    def close(self) -> None:
        with self._alone():
            self._closed = True
            self._give_up_coming()
            self._discarded += {*self._leases, *([self._newest] if self._newest else [])}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Under the lock. What is discarded meanwhile is closed without it: that takes until the callbacks of
        its calls have run, and those may wait for the lock."""
        with self._lock:
            yield
            discarded, self._discarded = self._discarded, []
        for connection in discarded:
            connection.channel.close()

    def _awaited(self) -> Coming | None:
        """A connection to wait for, as every call does at first: the old certificate may have expired."""
        material = self._tls.current() if self._tls else None
        newest = self._current()
        if newest.tls == material:
            self._give_up_coming()
        elif self._coming is None or self._coming.connection.tls != material:
            self._give_up_coming()
            self._coming = Coming(Connection.to(self._address, material))
        else:
            self._coming.ask_again()
        return self._coming

    def _current(self) -> Connection:
        """The newest that is ready."""
        if self._closed:
            raise ClientClosed
        if self._newest is None:
            self._newest = Connection.to(self._address, self._tls.current() if self._tls else None)
        elif self._coming is not None and self._coming.is_ready():
            old, self._newest, self._coming = self._newest, self._coming.connection, None
            self._close_if_unused(old)
        return self._newest

    def _give_up_coming(self) -> None:
        coming, self._coming = self._coming, None
        if coming is not None:
            self._discarded.append(coming.connection)

    def _end(self, lease: Lease) -> None:
        if os.getpid() != self._pid:
            return  # the parent's call is none of ours
        with self._alone():
            self._leases.get(lease.connection, set()).discard(lease)
            self._close_if_unused(lease.connection)

    def _close_if_unused(self, connection: Connection) -> None:
        if connection is not self._newest and not self._leases.get(connection):
            self._leases.pop(connection, None)
            self._discarded.append(connection)
