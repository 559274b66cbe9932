"""Limits how many workers start up at once, and chooses a warm server or a cold start."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from runyard.agent.core.warmth import Wait, Warm
from runyard.agent.drivers.process.fork_server_client import ForkServerClient
from runyard.agent.drivers.process.warm_servers import WarmServers
from runyard.agent.supervisor.procfs import ProcessIdentity
from runyard.agent.supervisor.rundir import RunDirectory

LONGEST_START = 30.0
"""Seconds after which a worker counts as started up even if it does not say so."""

_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class NotYet:
    """There is no shim for the attempt at the moment: ask again after so many seconds, or when woken."""

    seconds: float | None


class StartLimiter:
    """Starts shims.

    Args:
        link: To the fork server.
        warm: The warm servers.
        width: How many workers may be starting up at once.
    """

    def __init__(self, link: ForkServerClient, warm: WarmServers, width: int) -> None:
        self._link = link
        self._warm = warm
        self._queue = _StartQueue(width)

    async def start(
        self, directory: RunDirectory, wake: Callable[[], None], may_be_warm: bool
    ) -> ProcessIdentity | NotYet:
        """Fork a shim if it is the attempt's turn. Safe to repeat; ask until there is one.

        Args:
            directory: The attempt.
            wake: Called when its turn has come.
            may_be_warm: False for an attempt that a warm server has failed.

        Raises:
            NoShim: No shim, or none that is known of.
        """
        if not self._queue.has_turn(directory, wake):
            return NotYet(None)
        choice = await self._warm.choose(directory) if may_be_warm else None
        if isinstance(choice, Wait):
            return NotYet(min(choice.seconds, _LOOK_SECONDS))
        process = choice.process if isinstance(choice, Warm) else None
        return await self._link.start_shim(directory.path, process)

    def begun(self, directory: RunDirectory) -> None:
        """The worker's program has begun; the next one's turn comes when this one has started up."""
        self._queue.begun(directory)

    def over(self, directory: RunDirectory) -> None:
        """The attempt needs no shim any more."""
        self._queue.over(directory)

    async def close(self) -> None:
        """Prevent further starts."""
        await self._queue.close()


class _StartQueue:
    """Admits only so many workers to start up at once, in the order in which they came.

    An admitted attempt is in `_awaiting_begin` until its program has begun, and in `_starting_up` until the
    program has started up.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._waiting: OrderedDict[str, Callable[[], None]] = OrderedDict()
        self._awaiting_begin: set[str] = set()
        self._starting_up: dict[str, asyncio.Task[None]] = {}

    def has_turn(self, directory: RunDirectory, wake: Callable[[], None]) -> bool:
        if self._is_admitted(directory):
            return True
        self._waiting[directory.mark] = wake
        self._admit_next()
        return self._is_admitted(directory)

    def begun(self, directory: RunDirectory) -> None:
        if directory.mark in self._awaiting_begin:
            self._awaiting_begin.remove(directory.mark)
            task = asyncio.create_task(self._start_up(directory), name=f"start-up of {directory.mark}")
            self._starting_up[directory.mark] = task

    def over(self, directory: RunDirectory) -> None:
        self._waiting.pop(directory.mark, None)
        self._awaiting_begin.discard(directory.mark)
        task = self._starting_up.pop(directory.mark, None)
        if task is not None:
            task.cancel()
        self._admit_next()

    async def close(self) -> None:
        self._waiting.clear()
        tasks = list(self._starting_up.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_admitted(self, directory: RunDirectory) -> bool:
        return directory.mark in self._awaiting_begin or directory.mark in self._starting_up

    def _admit_next(self) -> None:
        while self._waiting and len(self._awaiting_begin) + len(self._starting_up) < self._width:
            mark, wake = self._waiting.popitem(last=False)
            self._awaiting_begin.add(mark)
            wake()

    async def _start_up(self, directory: RunDirectory) -> None:
        for _ in range(round(LONGEST_START / _LOOK_SECONDS)):
            if directory.is_ready:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        self._starting_up.pop(directory.mark, None)
        self._admit_next()
