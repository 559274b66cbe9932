"""Who wants to hear of every durable change of a run."""

import asyncio
import contextlib
from collections.abc import Iterator

from runyard.coordinator.core.model import Run

LIMIT = 10_000
"""Changes that may wait for one watcher before it is told that it is too slow."""


class TooSlow(Exception):
    """The watcher did not keep up; it must look at everything again."""


class ShuttingDown(Exception):
    """The coordinator is shutting down; it will be back."""


class Watcher:
    """One listener's queue of changed runs."""

    def __init__(self) -> None:
        self._changes: asyncio.Queue[Run | Exception] = asyncio.Queue()
        self._over = False

    def put(self, run: Run) -> None:
        """Queues a change without waiting."""
        if self._over:
            return
        if self._changes.qsize() >= LIMIT:
            self.end(TooSlow())
        else:
            self._changes.put_nowait(run)

    def end(self, cause: Exception) -> None:
        """Lets the listener take what is queued, and then raises the cause there."""
        self._over = True
        self._changes.put_nowait(cause)

    async def next(self) -> Run:
        """The next change.

        Raises:
            TooSlow: Changes were dropped.
            ShuttingDown: There will be no more.
        """
        change = await self._changes.get()
        if isinstance(change, Exception):
            raise change
        return change


class Watchers:
    """All listeners. A listener hears of a change only after it is on disk."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self._closed = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Registers a listener for the length of the block."""
        watcher = Watcher()
        self._watchers.add(watcher)
        if self._closed:
            watcher.end(ShuttingDown())
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """Tells every listener, also one that comes later, that there will be no more."""
        self._closed = True
        for watcher in self._watchers:
            watcher.end(ShuttingDown())

    def publish(self, run: Run) -> None:
        """Tells every listener."""
        for watcher in self._watchers:
            watcher.put(run)
