"""Who wants to hear of every durable change of a run."""

import asyncio
import contextlib
from collections.abc import Iterator

from runyard.coordinator.core.model import Run

LIMIT = 10_000
"""Changes that may wait for one watcher before it is told that it is too slow."""


class TooSlow(Exception):
    """The watcher did not keep up; it must look at everything again."""


class Watcher:
    """One listener's queue of changed runs."""

    def __init__(self) -> None:
        self._changes: asyncio.Queue[Run | None] = asyncio.Queue()
        self._over = False

    def put(self, run: Run) -> None:
        """Queues a change without waiting."""
        if self._over:
            return
        if self._changes.qsize() >= LIMIT:
            self.end()
        else:
            self._changes.put_nowait(run)

    def end(self) -> None:
        """Lets the listener take what is queued, and no more."""
        self._over = True
        self._changes.put_nowait(None)

    async def next(self) -> Run:
        """The next change.

        Raises:
            TooSlow: Changes were dropped.
        """
        run = await self._changes.get()
        if run is None:
            raise TooSlow
        return run


class Watchers:
    """All listeners. A listener hears of a change only after it is on disk."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Registers a listener for the length of the block."""
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def publish(self, run: Run) -> None:
        """Tells every listener."""
        for watcher in self._watchers:
            watcher.put(run)
