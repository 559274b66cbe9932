"""The blocking client's connection: one for each process, and another when its certificates have changed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import grpc

from runyard.client.channel import open_channel
from runyard.client.errors import ClientClosed
from runyard.client.tls import TlsMaterial, WatchedTls
from runyard.v1.fleet_pb2_grpc import FleetServiceStub
from runyard.v1.launch_pb2_grpc import LaunchServiceStub
from runyard.v1.security_pb2_grpc import SecurityServiceStub

HANDSHAKE_SECONDS: Final = 5.0
"""For how long calls wait for a connection with new certificates, from when it was opened. Later calls use
the old one until the new one is ready."""


@dataclass(frozen=True, eq=False)
class Connection:
    """A channel and its stubs; belongs to the process that opened it."""

    pid: int
    channel: grpc.Channel
    tls: TlsMaterial | None
    launch: LaunchServiceStub
    fleet: FleetServiceStub
    security: SecurityServiceStub
    opened: float = field(default_factory=time.monotonic)
    calls: set[object] = field(default_factory=set)

    @classmethod
    def to(cls, address: str, tls: TlsMaterial | None) -> Connection:
        """Opens one, which connects when it is first used."""
        channel = open_channel(address, tls)
        return cls(
            os.getpid(),
            channel,
            tls,
            LaunchServiceStub(channel),
            FleetServiceStub(channel),
            SecurityServiceStub(channel),
        )


class Lease:
    """The use of a connection by one call: it is not closed before the call ends."""

    def __init__(self, connections: Connections, connection: Connection) -> None:
        self._connections = connections
        self.connection = connection
        connection.calls.add(self)

    def end(self) -> None:
        """The call is over; may be said more than once."""
        self.connection.calls.discard(self)
        self._connections.close_if_unused(self.connection)


class Connections:
    """The newest connection of this process, and those before it that still have calls.

    No lock: a fork in another thread could leave it locked forever. Each step is atomic by itself: of those
    who race to put something into a dictionary all but one close theirs, which has not connected yet.
    """

    def __init__(self, address: str, tls: WatchedTls | None) -> None:
        self._address = address
        self._tls = tls
        self._closed = False
        # By process ID. A parent's entries stay: to destroy its channel in the child could hang.
        self._newest: dict[int, Connection] = {}
        self._coming: dict[tuple[int, str], Connection] = {}

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
        while True:
            lease = Lease(self, self._connection())
            if self._is_newest(lease.connection):
                return lease
            lease.end()  # it was replaced before we had it, and may be closed

    def close(self) -> None:
        """Closes this process's connections, and ends their calls."""
        self._closed = True
        pid = os.getpid()
        if (connection := self._newest.pop(pid, None)) is not None:
            connection.channel.close()
        self._give_up_coming()

    def close_if_unused(self, connection: Connection) -> None:
        """Closes a connection that was replaced, once no call is left on it."""
        if connection.pid == os.getpid() and not connection.calls and not self._is_newest(connection):
            connection.channel.close()

    def _is_newest(self, connection: Connection) -> bool:
        return self._newest.get(os.getpid()) is connection

    def _connection(self) -> Connection:
        if self._closed:
            raise ClientClosed
        material = self._tls.current() if self._tls else None
        found = self._newest.get(os.getpid())
        if found is None:
            opened = Connection.to(self._address, material)
            found = self._newest.setdefault(os.getpid(), opened)
            if found is not opened:
                opened.channel.close()
        elif material is not None and material != found.tls:
            self._renew(material)
        return self._newest.get(os.getpid(), found)

    def _renew(self, material: TlsMaterial) -> None:
        """Makes a connection with new certificates, and the newest of it when it is ready.

        Every call waits for it at first: the certificate of the old one may have expired.
        """
        key = (os.getpid(), material.digest)
        if key not in self._coming:
            self._give_up_coming()
            opened = Connection.to(self._address, material)
            if self._coming.setdefault(key, opened) is not opened:
                opened.channel.close()
        coming = self._coming.get(key)
        left = coming.opened + HANDSHAKE_SECONDS - time.monotonic() if coming is not None else 0.0
        if coming is None or left <= 0:
            return  # another thread was quicker, or patience is over
        ready: grpc.Future[None] = grpc.channel_ready_future(coming.channel)
        ready.add_done_callback(lambda _: self._replace(key, coming))
        with contextlib.suppress(grpc.FutureTimeoutError):
            ready.result(left)
            self._replace(key, coming)  # the callback may be yet to come

    def _give_up_coming(self) -> None:
        for key in [key for key in self._coming if key[0] == os.getpid()]:
            if (coming := self._coming.pop(key, None)) is not None:
                coming.channel.close()

    def _replace(self, key: tuple[int, str], ready: Connection) -> None:
        if self._coming.get(key) is not ready:
            return
        if self._tls is None or ready.tls != self._tls.current():
            self._coming.pop(key, None)
            ready.channel.close()  # the files have changed again
            return
        old = self._newest.get(key[0])
        self._newest[key[0]] = ready
        self._coming.pop(key, None)
        if self._closed:
            ready.channel.close()
        elif old is not None:
            self.close_if_unused(old)
