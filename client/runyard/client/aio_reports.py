"""The reporter's stream for asyncio: the mirror of `reports.py`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from runyard.client.acknowledgements import KEEPALIVE_SECONDS, PendingAcknowledgements
from runyard.client.errors import CoordinatorUnreachable, from_rpc_error
from runyard.client.requests import STREAM_TIMEOUT_SECONDS
from runyard.v1 import launch_pb2, run_pb2


class AsyncReportFollower:
    """See `ReportFollower`."""

    def __init__(
        self,
        stub: grpc.aio.StreamStreamMultiCallable[
            launch_pb2.FollowReportsRequest, launch_pb2.FollowReportsResponse
        ],
        pending: PendingAcknowledgements,
        address: str,
        on_end: Callable[[], None],
    ) -> None:
        """Opens the stream. Made by `AsyncClient.follow_reports`; `on_end` is called when it is over."""
        self._address = address
        self._pending = pending
        self._left = False
        self._changed = asyncio.Event()
        # gRPC cancels the requests together with the call.
        self._call = stub(self._requests(), timeout=STREAM_TIMEOUT_SECONDS)
        self._call.add_done_callback(lambda _: on_end())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[run_pb2.Run]:
        try:
            async for response in self._call:
                yield response.run
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._address, "FollowReports") from error
        except asyncio.CancelledError:
            # Cancelled by close() rather than from outside: the iteration just ends.
            if not self._left or _being_cancelled():
                raise
        if not self._left:
            raise CoordinatorUnreachable(self._address, "it ended the stream of reports")

    def acknowledge(self, keys: Iterable[launch_pb2.AttemptKey]) -> None:
        """See `ReportFollower.acknowledge`."""
        self._pending.add(keys)
        self._changed.set()

    def close(self) -> None:
        """See `ReportFollower.close`."""
        self._left = True
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[launch_pb2.FollowReportsRequest]:
        yield self._pending.opening()
        while True:
            if not self._pending:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), KEEPALIVE_SECONDS)
            yield self._pending.next_request()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
