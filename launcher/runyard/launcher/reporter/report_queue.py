"""Which attempt to look at next, and when; between the thread that hears reports and the one that settles."""

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from runyard.v1 import run_pb2

# More wait at the coordinator, which sends every report until it is acknowledged.
MAX_CASES = 1000


@dataclass(frozen=True)
class Case:
    """One reported attempt, to be settled in Dagster."""

    run: run_pb2.Run
    # True once the worker's last writes into Dagster have had time to arrive.
    drained: bool = False
    # How often settling it went wrong.
    failures: int = 0

    @property
    def key(self) -> tuple[str, int]:
        return self.run.run_id, self.run.attempt


class Agenda:
    """Cases by due time, at most one for an attempt: a newer report takes the place of an older one."""

    def __init__(self, max_cases: int = MAX_CASES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_cases = max_cases
        self._clock = clock
        self._changed = threading.Condition()
        self._cases: dict[tuple[str, int], tuple[float, Case]] = {}
        self._due: list[tuple[float, tuple[str, int]]] = []
        self._closed = False

    def add(self, case: Case) -> None:
        """Takes a new report, due at once. Waits while the agenda is full."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._cases) < self._max_cases)
            self._put(case, self._clock())

    def postpone(self, case: Case, seconds: float) -> None:
        """Takes back a case, to be looked at again after `seconds`, unless a newer report came."""
        with self._changed:
            if case.key not in self._cases:
                self._put(case, self._clock() + seconds)

    def take(self, timeout: float) -> Case | None:
        """Waits for the next due case.

        Returns:
            The case, or None after `timeout` seconds, or at once when the agenda is closed.
        """
        deadline = self._clock() + timeout
        with self._changed:
            while not self._closed:
                now = self._clock()
                next_due = self._next_due()
                if next_due is not None and next_due <= now:
                    return self._pop()
                if now >= deadline:
                    return None
                self._changed.wait(min(deadline, deadline if next_due is None else next_due) - now)
            return None

    def close(self) -> None:
        """Lets everyone who waits go on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, case: Case, due: float) -> None:
        self._cases[case.key] = (due, case)
        heapq.heappush(self._due, (due, case.key))
        self._changed.notify_all()

    def _next_due(self) -> float | None:
        """When the first case is due; drops heap entries whose case was replaced."""
        while self._due:
            due, key = self._due[0]
            if key in self._cases and self._cases[key][0] == due:
                return due
            heapq.heappop(self._due)
        return None

    def _pop(self) -> Case:
        _, key = heapq.heappop(self._due)
        _, case = self._cases.pop(key)
        self._changed.notify_all()
        return case
