"""Watches one worker in its shim: obeys stop requests, fence and limits. Standard library only."""

import contextlib
import os
import signal

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.contact import Fence
from runyard.agent.supervisor.exit_records import ended, kill_all, remaining_processes, running
from runyard.agent.supervisor.limits.enforcement import Unlimited
from runyard.agent.supervisor.records import ExitRecord, StopRequest
from runyard.agent.supervisor.rundir import RunDirectory, RunDirectoryError
from runyard.agent.supervisor.stop_deadline import StopDeadline

WATCHED_SIGNALS = {signal.SIGCHLD, signal.SIGTERM}
"""To be blocked before a worker is watched: they are waited for."""

_SWEEP_PAUSES_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Watch:
    """Waits for the worker, obeys stop requests, and leaves no descendant behind."""

    def __init__(
        self, directory: RunDirectory, worker_pid: int, fence: Fence | None, limits: Unlimited
    ) -> None:
        self._directory = directory
        self._limits = limits
        self._worker_pid = worker_pid
        self._fence = fence
        self._worker_end: ExitRecord | None = None
        self._stop: StopRequest | None = None
        self._deadline: StopDeadline | None = None

    def until_over(self) -> ExitRecord:
        """Return when the worker and all its descendants are gone."""
        while self._worker_end is None and not self._is_out_of_grace():
            self._obey_stop()
            self._obey_fence()
            self._wait_for_signal(self._time_left())
            self._reap()
            self._obey_limits()
        return self._sweep()

    def _is_out_of_grace(self) -> bool:
        return self._deadline is not None and self._deadline.is_due(procfs.boottime())

    def _time_left(self) -> float | None:
        looks = [None if self._fence is None else self._fence.look_in(), self._limits.look_in()]
        if self._deadline is not None:
            looks.append(self._deadline.seconds_left(procfs.boottime()))
        return min((look for look in looks if look is not None), default=None)

    def _wait_for_signal(self, seconds: float | None) -> None:
        if seconds is None:
            signal.sigwaitinfo(WATCHED_SIGNALS)
        else:
            signal.sigtimedwait(WATCHED_SIGNALS, seconds)

    def _obey_stop(self) -> None:
        stop = self._directory.read_stop()
        if stop is not None and stop != self._stop:
            self._heed(stop)

    def _obey_fence(self) -> None:
        if self._fence is None or self._fence.seconds_left() > 0:
            return
        stop = self._fence.stop()
        with contextlib.suppress(RunDirectoryError):  # a full disk must not keep the worker alive
            self._directory.request_stop(stop)
        self._heed(stop)
        self._fence = None

    def _obey_limits(self) -> None:
        if self._worker_end is None and self._limits.look_in() is not None and self._limits.is_exceeded():
            self._deadline = StopDeadline(kill_at=procfs.boottime())

    def _heed(self, stop: StopRequest) -> None:
        if self._stop is None:
            os.kill(self._worker_pid, signal.SIGTERM)
            os.kill(self._worker_pid, signal.SIGCONT)  # a suspended worker could not even hear it
        self._stop = stop
        self._deadline = StopDeadline.from_delivery(stop, procfs.boottime()).or_earlier(self._deadline)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._worker_pid:
                self._worker_end = ended(status, usage, self._stop)

    def _sweep(self) -> ExitRecord:
        pauses = iter(_SWEEP_PAUSES_SECONDS)
        while True:
            more = kill_all(remaining_processes(self._directory, os.getpid()))
            more = kill_all(running(self._limits.members() - {os.getpid()})) or more
            self._reap()
            if self._worker_end is not None and not more:
                return self._worker_end
            self._wait_for_signal(next(pauses, _SWEEP_PAUSES_SECONDS[-1]))
