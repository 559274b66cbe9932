"""Attempts whose shim was killed: limits and fence of a worker that lives, clean-up after one that is dead.

Standard library only.
"""

import contextlib
import signal

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.attempt_resources import AttemptResources, attempt_resources_of
from runyard.agent.supervisor.contact import Fence
from runyard.agent.supervisor.exit_records import kill_all, remaining_processes, running
from runyard.agent.supervisor.procfs import ProcessIdentity
from runyard.agent.supervisor.records import ExitRecord, StopRequest, UnreadableRecord
from runyard.agent.supervisor.retry import Retry, complain
from runyard.agent.supervisor.rundir import RunDirectory, RunDirectoryError
from runyard.agent.supervisor.stop_deadline import StopDeadline

RETRY_SECONDS = 0.2
"""Pause before the next try of a clean-up, and between two checks of a worker that is being stopped."""


class CleanUp:
    """Clean-up of an attempt whose shim and worker are dead: kill what is left, then record the end.

    Args:
        directory: The attempt.
        exit_record: Its end.
        resources: The attempt's scratch directory and control group.
        process: Name of this process in error messages.
    """

    def __init__(
        self, directory: RunDirectory, exit_record: ExitRecord, resources: AttemptResources, process: str
    ) -> None:
        self._directory = directory
        self._exit_record = exit_record
        self._resources = resources
        self._process = process
        self._retry = Retry(process)
        self._try_at = 0.0

    def seconds_left(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._try_at - procfs.boottime())

    def is_done(self) -> bool:
        """Try to finish, if it is time; true once the end is on disk, or there is no directory for it."""
        if self.seconds_left() > 0:
            return False
        self._try_at = procfs.boottime() + RETRY_SECONDS
        remaining = remaining_processes(self._directory, root=None)
        if kill_all([*remaining, *running(self._resources.limits.members())]):
            return False
        try:
            self._directory.write_exit(self._resources.limits.classify(self._exit_record))
        except RunDirectoryError as error:
            if not self._directory.is_deleted:
                self._try_at = procfs.boottime() + self._retry.failed(error)
                return False
            complain(self._process, error, "giving up, as it was deleted")
        self._resources.release()
        return True


class Orphan:
    """A worker whose shim is dead. Its fence and its limits hold even if its agent is dead.

    Args:
        directory: The attempt.
        worker: The worker's process.
    """

    def __init__(self, directory: RunDirectory, worker: ProcessIdentity) -> None:
        self.directory = directory
        self.resources = attempt_resources_of(directory, worker.pid)
        self._worker = worker
        self._fence: Fence | None = None
        with contextlib.suppress(UnreadableRecord):
            self._fence = Fence.of(directory, directory.read_spec())
        self._stop: StopRequest | None = None
        self._deadline: StopDeadline | None = None

    @property
    def stop(self) -> StopRequest | None:
        """The stop request that was delivered to the worker, if any."""
        return self._stop or self.directory.read_stop()

    def look(self) -> float | None:
        """Enforces fence and limits; gives the seconds until the next look, or None if there is no need."""
        limits = self.resources.limits
        if limits.look_in() is not None and limits.is_exceeded():
            self._kill()
            return RETRY_SECONDS
        looks = [limits.look_in(), self._look_at_fence()]
        return min((look for look in looks if look is not None), default=None)

    def _look_at_fence(self) -> float | None:
        if self._fence is None:
            return None
        if self._stop is None and self._fence.seconds_left() > 0:
            return self._fence.look_in()
        if self._stop is None:
            self._begin_stop(self._fence.stop())
        elif self._deadline is not None and self._deadline.is_due(procfs.boottime()):
            self._kill()
        return RETRY_SECONDS

    def _kill(self) -> None:
        kill_all(remaining_processes(self.directory, self._worker.pid))
        procfs.send_signal(self._worker, signal.SIGKILL)

    def _begin_stop(self, stop: StopRequest) -> None:
        self._stop = stop
        self._deadline = StopDeadline.from_delivery(stop, procfs.boottime())
        with contextlib.suppress(RunDirectoryError):  # a full disk must not keep the worker alive
            self.directory.request_stop(stop)
        procfs.send_signal(self._worker, signal.SIGTERM)
        procfs.send_signal(self._worker, signal.SIGCONT)
