"""FollowReports: one reporter of each deployment at a time gets every outcome until it acknowledges it."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TypeVar

import structlog

from runyard.coordinator.core.client_scope import ClientScope
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.on_launch import on_reports_settled, unsettled
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Assigned, Finished, Instant, Queued, Run, Running, Starting
from runyard.coordinator.grpc.errors import Unavailable
from runyard.coordinator.runtime.runtime import Runtime
from runyard.v1 import launch_pb2

SILENCE = 15.0
"""Seconds without a message after which a reporter loses its turn; it should send one every 5 s."""

log = structlog.get_logger("runyard.coordinator.reports")

Requests = AsyncIterator[launch_pb2.FollowReportsRequest]
T = TypeVar("T")


class ReporterQueue:
    """The reporters of each deployment, in the order in which they came. The first one has the turn.

    ::

        stream opens ──► waits ──► has the turn: gets outcomes ──► stream ends, the next has the turn
                           │                                            ▲
                           └──────── leaves, or falls silent ───────────┘

    The coordinator reads a reporter's messages all the time, also while it waits.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues: defaultdict[tuple[str, str], list[asyncio.Event]] = defaultdict(list)

    async def follow(self, requests: Requests, scope: ClientScope) -> AsyncIterator[Run]:
        """Wait for the reporter's turn, then yield the runs that `FollowReportsResponse` names.

        Args:
            requests: Messages of the reporter.
            scope: Runs that it may see. A reporter that may not see all runs has a separate queue.

        Raises:
            InvalidField: The first message names no deployment.
            Unavailable: The reporter fell silent, or left before its turn.
        """
        first = await anext(aiter(requests), None)
        if first is None or not first.deployment:
            raise InvalidField("deployment", "is empty in the first message; name the Dagster deployment")
        reporter = _Reporter(self._runtime, requests, scope)
        queue = (first.deployment, "" if scope.clusters is None else scope.who)
        with self._queued(queue) as turn:
            try:
                await reporter.wait_for(turn.wait())
                log.info("reporter_follows", deployment=first.deployment, reporter=first.reporter)
                async for run in self._outcomes(first.deployment, reporter, scope):
                    yield run
            except _ReporterLeft:
                if not turn.is_set():
                    raise Unavailable("the reporter left before its turn") from None
            finally:
                await reporter.close()

    @contextlib.contextmanager
    def _queued(self, name: tuple[str, str]) -> Iterator[asyncio.Event]:
        """Queue a reporter for the block. The event is set when it has the turn."""
        turn = asyncio.Event()
        queue = self._queues[name]
        queue.append(turn)
        queue[0].set()
        try:
            yield turn
        finally:
            queue.remove(turn)
            if queue:
                queue[0].set()
            else:
                del self._queues[name]

    async def _outcomes(
        self, deployment: str, reporter: "_Reporter", scope: ClientScope
    ) -> AsyncIterator[Run]:
        with self._runtime.watchers.watching() as watcher:
            await self._runtime.until_durable()
            for run in unsettled(self._runtime.fleet, deployment):
                if scope.includes(run.launch):
                    yield run
            while True:
                run = await reporter.wait_for(watcher.next())
                ours = run.launch.deployment == deployment and scope.includes(run.launch)
                if ours and _is_reportable(self._runtime.fleet, run):
                    yield run


class _ReporterLeft(Exception):
    """The reporter has ended its side of the stream."""


class _Reporter:
    """A connected reporter. A task reads its acknowledgements until it leaves or falls silent."""

    def __init__(self, runtime: Runtime, requests: Requests, scope: ClientScope) -> None:
        self._runtime = runtime
        self._scope = scope
        self._reading = asyncio.create_task(self._read(requests))

    async def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Wait for a result while the reporter is connected.

        Raises:
            _ReporterLeft: The reporter left.
            Unavailable: The reporter fell silent.
        """
        result = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({result, self._reading}, return_when=asyncio.FIRST_COMPLETED)
            if self._reading.done():
                await self._reading
                raise _ReporterLeft
            return result.result()
        finally:
            result.cancel()

    async def close(self) -> None:
        """Stop reading."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, requests: Requests) -> None:
        iterator = aiter(requests)
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    request = await anext(iterator, None)
            except TimeoutError:
                raise Unavailable(f"no message from the reporter for {SILENCE:g} s") from None
            if request is None:
                return
            await self._settle(request)

    async def _settle(self, request: launch_pb2.FollowReportsRequest) -> None:
        keys = [(key.run_id, key.attempt) for key in request.acknowledged if self._sees(key.run_id)]

        def settle(fleet: Fleet, _: Instant) -> None:
            on_reports_settled(fleet, keys)

        if keys:
            await self._runtime.decide(settle)

    def _sees(self, run_id: str) -> bool:
        run = self._runtime.fleet.runs.get(run_id)
        return run is not None and self._scope.includes(run.launch)


def _is_reportable(fleet: Fleet, run: Run) -> bool:
    match run.phase:
        case Running():
            return True
        case Finished():
            return not run.reported
        case Queued():
            return bool(run.refused_by) and run.run_id in fleet.queue
        case Assigned():
            return bool(run.refused_by)
        case Starting():
            return run.run_id in fleet.progress
        case _:
            return False
