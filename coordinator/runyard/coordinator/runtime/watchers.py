"""Subscriptions to durable changes of runs."""

import asyncio
import contextlib
from collections.abc import Iterator

from runyard.coordinator.core.model import Run

LIMIT = 10_000
"""Maximum number of queued changes of a watcher; beyond it the watcher gets `TooSlow`."""


class TooSlow(Exception):
    """The watcher did not keep up; it must read all runs again."""


class ShuttingDown(Exception):
    """The coordinator is shutting down; call again later."""


class Watcher:
    """Queue of changed runs of one subscriber."""

    def __init__(self) -> None:
        self._changes: asyncio.Queue[Run | Exception] = asyncio.Queue()
        self._ended = False

    def put(self, run: Run) -> None:
        """Queue a change without waiting."""
        if self._ended:
            return
        if self._changes.qsize() >= LIMIT:
            self.end(TooSlow())
        else:
            self._changes.put_nowait(run)

    def end(self, error: Exception) -> None:
        """Make `next` raise an error after the queued changes."""
        self._ended = True
        self._changes.put_nowait(error)

    async def next(self) -> Run:
        """Wait for the next change and return it.

        Raises:
            TooSlow: Changes were dropped.
            ShuttingDown: No more changes will follow.
        """
        change = await self._changes.get()
        if isinstance(change, Exception):
            raise change
        return change


class Watchers:
    """All watchers. A change is published only after it is on disk."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self._closed = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Context manager that subscribes a watcher for the block."""
        watcher = Watcher()
        self._watchers.add(watcher)
        if self._closed:
            watcher.end(ShuttingDown())
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End all watchers with `ShuttingDown`, also those that subscribe later."""
        self._closed = True
        for watcher in self._watchers:
            watcher.end(ShuttingDown())

    def publish(self, run: Run) -> None:
        """Queue a change for every watcher."""
        for watcher in self._watchers:
            watcher.put(run)
