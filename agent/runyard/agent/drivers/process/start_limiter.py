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
        self._line = _StartQueue(width)

    async def start(
        self, directory: RunDirectory, wake: Callable[[], None], may_be_warm: bool
    ) -> ProcessIdentity | NotYet:
        """Has a shim forked, if it is the attempt's turn. Safe to repeat; ask until there is one.

        Args:
            directory: The attempt.
            wake: Called when its turn has come.
            may_be_warm: False for an attempt that a warm server has failed.

        Raises:
            NoShim: No shim, or none that is known of.
        """
        if not self._line.has_turn(directory, wake):
            return NotYet(None)
        choice = await self._warm.choose(directory) if may_be_warm else None
        if isinstance(choice, Wait):
            return NotYet(min(choice.seconds, _LOOK_SECONDS))
        process = choice.process if isinstance(choice, Warm) else None
        return await self._link.start_shim(directory.path, process)

    def begun(self, directory: RunDirectory) -> None:
        """The worker's program has begun; the next one's turn comes when this one has started up."""
        self._line.begun(directory)

    def over(self, directory: RunDirectory) -> None:
        """The attempt needs no shim any more."""
        self._line.over(directory)

    async def close(self) -> None:
        """Prevent further starts."""
        await self._line.close()


class _StartQueue:
    """Lets only so many workers start up at once, in the order in which they came."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._starting: dict[str, asyncio.Task[None] | None] = {}
        self._waiting: OrderedDict[str, Callable[[], None]] = OrderedDict()

    def has_turn(self, directory: RunDirectory, wake: Callable[[], None]) -> bool:
        if directory.mark in self._starting:
            return True
        self._waiting[directory.mark] = wake
        self._let_go_on()
        return directory.mark in self._starting

    def begun(self, directory: RunDirectory) -> None:
        if self._starting.get(directory.mark, ...) is None:
            task = asyncio.create_task(self._start_up(directory), name=f"start-up of {directory.mark}")
            self._starting[directory.mark] = task

    def over(self, directory: RunDirectory) -> None:
        self._waiting.pop(directory.mark, None)
        task = self._starting.pop(directory.mark, None)
        if task is not None:
            task.cancel()
        self._let_go_on()

    async def close(self) -> None:
        self._waiting.clear()
        tasks = [task for task in self._starting.values() if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _let_go_on(self) -> None:
        while self._waiting and len(self._starting) < self._width:
            mark, wake = self._waiting.popitem(last=False)
            self._starting[mark] = None
            wake()

    async def _start_up(self, directory: RunDirectory) -> None:
        for _ in range(round(LONGEST_START / _LOOK_SECONDS)):
            if directory.is_ready:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        self._starting.pop(directory.mark, None)
        self._let_go_on()
