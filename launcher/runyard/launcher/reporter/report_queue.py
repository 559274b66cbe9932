"""Queue of reports between the thread that receives them and the one that settles them."""

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from runyard.v1 import run_pb2

# The rest waits at the coordinator, which repeats every report until it is acknowledged.
CAPACITY = 1000


@dataclass(frozen=True)
class PendingReport:
    """One reported attempt, to be settled in Dagster."""

    run: run_pb2.Run
    # True once the worker's last writes into Dagster have had time to arrive.
    drained: bool = False
    # Failed tries to settle it.
    failures: int = 0

    @property
    def key(self) -> tuple[str, int]:
        return self.run.run_id, self.run.attempt


class ReportQueue:
    """Pending reports by due time, at most one per attempt: a newer report replaces an older one."""

    def __init__(self, capacity: int = CAPACITY, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._changed = threading.Condition()
        self._reports: dict[tuple[str, int], tuple[float, PendingReport]] = {}
        self._due: list[tuple[float, tuple[str, int]]] = []
        self._closed = False

    def add(self, report: PendingReport) -> None:
        """Add a new report, due at once. Blocks while the queue is full."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._reports) < self._capacity)
            self._put(report, self._clock())

    def postpone(self, report: PendingReport, seconds: float) -> None:
        """Put a report back for `seconds`, unless a newer one of the same attempt has arrived."""
        with self._changed:
            if report.key not in self._reports:
                self._put(report, self._clock() + seconds)

    def take(self, timeout: float) -> PendingReport | None:
        """Wait for the next due report.

        Returns:
            The report, or None after `timeout` seconds, or at once when the queue is closed.
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
        """Wake every waiting thread; nothing is handed out afterwards."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, report: PendingReport, due: float) -> None:
        self._reports[report.key] = (due, report)
        heapq.heappush(self._due, (due, report.key))
        self._changed.notify_all()

    def _next_due(self) -> float | None:
        """When the first report is due; drops heap entries whose report was replaced."""
        while self._due:
            due, key = self._due[0]
            if key in self._reports and self._reports[key][0] == due:
                return due
            heapq.heappop(self._due)
        return None

    def _pop(self) -> PendingReport:
        _, key = heapq.heappop(self._due)
        _, report = self._reports.pop(key)
        self._changed.notify_all()
        return report
