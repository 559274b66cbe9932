"""The reporter's stream: runs that began or ended come in, acknowledgements go out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import grpc

from runyard.client.errors import CoordinatorUnreachable, ResourceExhausted, from_rpc_error
from runyard.client.requests import STREAM_TIMEOUT_SECONDS
from runyard.v1 import launch_pb2, run_pb2

# FollowReports wants a message at least this often; after 15 s of silence it serves the next reporter.
KEEPALIVE_SECONDS: Final = 5.0

MAX_PENDING: Final = 10_000
MAX_PER_MESSAGE: Final = 1_000


class PendingAcknowledgements:
    """A bounded set of attempts that are settled and not sent yet, in the order of their settling."""

    def __init__(self, deployment: str, reporter: str) -> None:
        """Starts empty.

        Args:
            deployment: Name of the Dagster deployment that is reported for.
            reporter: Who reports, for people: host name and process ID.

        Raises:
            ValueError: `deployment` is empty.
        """
        if not deployment:
            raise ValueError("deployment: is empty; give the name under which the runs were launched")
        self._deployment = deployment
        self._reporter = reporter
        self._keys: dict[tuple[str, int], None] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, keys: Iterable[launch_pb2.AttemptKey]) -> None:
        """Takes settled attempts.

        Raises:
            ResourceExhausted: The coordinator has long stopped to take acknowledgements; it will send those
                runs again to the next stream.
        """
        self._keys.update(((key.run_id, key.attempt), None) for key in keys)
        if len(self._keys) > MAX_PENDING:
            raise ResourceExhausted(
                f"{len(self._keys)} acknowledgements wait to be sent: the stream is stuck, open it again"
            )

    def opening(self) -> launch_pb2.FollowReportsRequest:
        """The first message of the stream."""
        return launch_pb2.FollowReportsRequest(deployment=self._deployment, reporter=self._reporter)

    def next_request(self) -> launch_pb2.FollowReportsRequest:
        """Takes out the oldest acknowledgements as one message; without any, it only shows that we live."""
        taken = [key for key, _ in zip(self._keys, range(MAX_PER_MESSAGE), strict=False)]
        for key in taken:
            del self._keys[key]
        keys = [launch_pb2.AttemptKey(run_id=run_id, attempt=attempt) for run_id, attempt in taken]
        return launch_pb2.FollowReportsRequest(acknowledged=keys)


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
        """Report to the coordinator that attempts are settled in Dagster; returns at once.

        Raises:
            ResourceExhausted: The coordinator has stopped accepting acknowledgements; open the stream again.
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
