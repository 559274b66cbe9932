"""FollowReports: one reporter of a deployment at a time hears of every outcome until it is settled."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator

import structlog

from runyard.coordinator.core.client_scope import Sight
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.on_launch import on_reports_settled, unsettled
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Assigned, Finished, Queued, Run, Running, Starting
from runyard.coordinator.grpc.errors import Unavailable
from runyard.coordinator.runtime.runtime import Runtime
from runyard.v1 import launch_pb2

SILENCE = 15.0
"""Seconds without a message after which a reporter loses its turn; it is to speak every 5 s."""

log = structlog.get_logger("runyard.coordinator.reports")

Requests = AsyncIterator[launch_pb2.FollowReportsRequest]


class ReportLine:
    """The reporters of each deployment, in line for their turn."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._turns: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def follow(self, requests: Requests, sight: Sight) -> AsyncIterator[Run]:
        """Waits for the reporter's turn, then gives it what `FollowReportsResponse` names.

        Args:
            requests: What the reporter says.
            sight: Which runs it sees. One that does not see all is in a line of its own.

        Raises:
            InvalidField: The first message names no deployment.
            Unavailable: The reporter fell silent, or went away.
        """
        first = await anext(aiter(requests), None)
        if first is None or not first.deployment:
            raise InvalidField("deployment", "is empty in the first message; name the Dagster deployment")
        listening = asyncio.create_task(self._listen(requests, sight))
        line = (first.deployment, "" if sight.clusters is None else sight.who)
        try:
            async with self._turn(line, listening):
                log.info("reporter_follows", deployment=first.deployment, reporter=first.reporter)
                async for run in self._tell(first.deployment, listening, sight):
                    yield run
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, Unavailable):
                await listening

    @contextlib.asynccontextmanager
    async def _turn(self, line: tuple[str, str], listening: asyncio.Task[None]) -> AsyncIterator[None]:
        lock = self._turns[line]
        taking = asyncio.create_task(lock.acquire())
        try:
            await asyncio.wait({taking, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                await listening
                raise Unavailable("the reporter went away before its turn came")
            yield
        finally:
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taking
            if taking.done() and not taking.cancelled():
                lock.release()

    async def _tell(self, deployment: str, listening: asyncio.Task[None], sight: Sight) -> AsyncIterator[Run]:
        with self._runtime.watchers.watching() as watcher:
            await self._runtime.decided()
            for run in unsettled(self._runtime.fleet, deployment):
                if sight.sees(run.launch):
                    yield run
            while True:
                change = asyncio.create_task(watcher.next())
                try:
                    await asyncio.wait({change, listening}, return_when=asyncio.FIRST_COMPLETED)
                    if listening.done():
                        await listening
                        return
                    run = change.result()
                finally:
                    change.cancel()
                ours = run.launch.deployment == deployment and sight.sees(run.launch)
                if ours and _is_news(self._runtime.fleet, run):
                    yield run

    async def _listen(self, requests: Requests, sight: Sight) -> None:
        """Takes acknowledgements until the reporter leaves or falls silent."""
        iterator = aiter(requests)
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    request = await anext(iterator, None)
            except TimeoutError:
                raise Unavailable(f"nothing heard from the reporter for {SILENCE:g} s") from None
            if request is None:
                return
            keys = [
                (key.run_id, key.attempt) for key in request.acknowledged if self._sees(sight, key.run_id)
            ]
            if keys:
                await self._runtime.decide(lambda fleet, _, keys=keys: on_reports_settled(fleet, keys))  # type: ignore[misc]

    def _sees(self, sight: Sight, run_id: str) -> bool:
        run = self._runtime.fleet.runs.get(run_id)
        return run is not None and sight.sees(run.launch)


def _is_news(fleet: Fleet, run: Run) -> bool:
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
