"""Timers by key, in a heap."""

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SLACK = 64
"""Outdated entries that are always kept; beyond these, the heap is twice as long as it must be at most."""


class Timers(Generic[K]):
    """One time per key, in seconds on the monotonic clock."""

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._numbers = itertools.count()

    def set(self, key: K, at: float) -> None:
        """Set the timer of `key`, replacing an earlier one."""
        if self._at.get(key) == at:
            return
        self._at[key] = at
        heapq.heappush(self._heap, (at, next(self._numbers), key))
        if len(self._heap) > 2 * len(self._at) + SLACK:
            self._heap = [(at, next(self._numbers), key) for key, at in self._at.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Cancel the timer of `key`."""
        self._at.pop(key, None)

    def clear(self) -> None:
        """Cancel all timers."""
        self._at.clear()
        self._heap.clear()

    def take_due(self, now: float) -> list[K]:
        """Remove and return the keys that are due, the longest overdue first."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                due.append(key)
        return due
