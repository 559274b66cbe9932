"""The reporter's stream, blocking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import grpc

from runyard.client.acknowledgements import KEEPALIVE_SECONDS, PendingAcknowledgements
from runyard.client.errors import CoordinatorUnreachable, from_rpc_error
from runyard.client.requests import STREAM_TIMEOUT_SECONDS
from runyard.v1 import launch_pb2, run_pb2


class ReportFollower:
    """Iterate it for runs: finished attempts, which need an acknowledgement, and ones that began to run.

    One reporter of a deployment is served at a time; until its turn comes, iterating waits. It shows the
    coordinator that it lives by itself. Iterating raises `RunyardError` when the stream ends in any other way
    than by `close()`. What was not acknowledged comes again on the next stream.
    """

    def __init__(
        self,
        stub: grpc.StreamStreamMultiCallable[
            launch_pb2.FollowReportsRequest, launch_pb2.FollowReportsResponse
        ],
        pending: PendingAcknowledgements,
        address: str,
        on_end: Callable[[], None],
    ) -> None:
        """Opens the stream. Made by `Client.follow_reports`; `on_end` is called when the stream is over."""
        self._address = address
        self._pending = pending
        self._left = False
        self._stream_over = False
        self._changed = threading.Condition()
        self._call = stub(self._requests(), timeout=STREAM_TIMEOUT_SECONDS)
        # Lets the sending thread end with the stream rather than at its next keepalive. False: ended already.
        for end in (self._end_requests, on_end):
            if not self._call.add_callback(end):
                end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[run_pb2.Run]:
        try:
            for response in self._call:
                yield response.run
        except grpc.RpcError as error:
            if self._left:
                return
            raise from_rpc_error(error, self._address, "FollowReports") from error
        if not self._left:
            raise CoordinatorUnreachable(self._address, "it ended the stream of reports")

    def acknowledge(self, keys: Iterable[launch_pb2.AttemptKey]) -> None:
        """Tells the coordinator that attempts are settled in Dagster; returns at once.

        Raises:
            ResourceExhausted: The coordinator has long stopped to take acknowledgements; follow anew.
        """
        with self._changed:
            self._pending.add(keys)
            self._changed.notify()

    def close(self) -> None:
        """Ends the stream, so that the next reporter gets its turn."""
        self._left = True
        self._end_requests()
        self._call.cancel()

    def _end_requests(self) -> None:
        with self._changed:
            self._stream_over = True
            self._changed.notify()

    def _requests(self) -> Iterator[launch_pb2.FollowReportsRequest]:
        """Runs in a thread of gRPC's."""
        yield self._pending.opening()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stream_over or self._pending, KEEPALIVE_SECONDS)
                if self._stream_over:
                    return
                request = self._pending.next_request()
            yield request
