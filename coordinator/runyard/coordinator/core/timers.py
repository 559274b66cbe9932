"""When something must be looked at again, by key; the next one is always at hand."""

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
        """Wakes `key` at this time, and no more at the time set before."""
        if self._at.get(key) == at:
            return
        self._at[key] = at
        heapq.heappush(self._heap, (at, next(self._numbers), key))
        if len(self._heap) > 2 * len(self._at) + SLACK:
            self._heap = [(at, next(self._numbers), key) for key, at in self._at.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Wakes `key` no more."""
        self._at.pop(key, None)

    def clear(self) -> None:
        """Wakes nobody."""
        self._at.clear()
        self._heap.clear()

    def take_due(self, now: float) -> list[K]:
        """The keys whose time has come, the longest overdue first; their timers are gone."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                due.append(key)
        return due
