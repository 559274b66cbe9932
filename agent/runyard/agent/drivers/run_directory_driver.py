"""The shared half of all drivers whose attempts live in run directories on this machine.

A driver adds how one attempt is supervised (`_new_supervisor`), and what it needs around that.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import structlog

from runyard.agent.core.model import Accepted, AttemptKey, AttemptPhase, Finished, HeldAttempt
from runyard.agent.drivers.attempt_supervisor import AttemptSupervisor
from runyard.agent.drivers.base import OnChange, UnknownAttempt
from runyard.agent.drivers.outcomes import held_attempt, key_of
from runyard.agent.supervisor.procfs import boottime
from runyard.agent.supervisor.records import Cause, StopRequest, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

S = TypeVar("S", bound=AttemptSupervisor)

log = structlog.get_logger("runyard.agent.drivers")


def find_directory(directories: RunDirectories, key: AttemptKey) -> RunDirectory:
    """The run directory of an attempt.

    Raises:
        UnknownAttempt: There is none.
    """
    directory = directories.open(key)
    if directory is None:
        raise UnknownAttempt(f"attempt {key} is not on this node")
    return directory


def new_stop_request(grace_seconds: float, reason: str, cause: Cause) -> StopRequest:
    """A stop request that is made now; for the arguments see `Driver.stop`."""
    return StopRequest(
        grace_seconds, reason, requested_at=time.time(), cause=cause, requested_at_boottime=boottime()
    )


@dataclass(frozen=True)
class _Supervised(Generic[S]):
    supervisor: S
    task: asyncio.Task[None]


class RunDirectoryDriver(ABC, Generic[S]):
    """Starts, stops and recovers attempts by one supervisor each.

    Args:
        directories: The attempts on this disk.
        on_change: Called for every phase that an attempt enters.
    """

    name: ClassVar[str]
    owns_unreadable: ClassVar[bool] = False
    """True for the one driver that reports attempts whose spec cannot be read."""

    def __init__(self, directories: RunDirectories, on_change: OnChange) -> None:
        self._directories = directories
        self._on_change = on_change
        self._supervised: dict[AttemptKey, _Supervised[S]] = {}

    @abstractmethod
    def _new_supervisor(
        self, directory: RunDirectory, key: AttemptKey, on_phase: Callable[[AttemptPhase], None]
    ) -> S:
        """Create the supervisor of an attempt."""

    def _held(self, directory: RunDirectory) -> HeldAttempt:
        """The attempt as its run directory has it. Blocks."""
        return held_attempt(directory)

    def _on_supervision_ended(self, key: AttemptKey) -> None:
        """Called when the supervisor of an attempt is done."""

    async def recover(self) -> list[HeldAttempt]:
        """Resume supervising the attempts on disk. See `Driver.recover`."""
        found = []
        for directory in await asyncio.to_thread(self._recoverable):
            held = await asyncio.to_thread(self._held, directory)
            found.append(held)
            if not isinstance(held.phase, Accepted | Finished):
                self._supervise(directory)
        return found

    async def start(self, key: AttemptKey) -> None:
        """Start the worker. See `Driver.start`."""
        self._supervise(find_directory(self._directories, key))

    async def stop(
        self, key: AttemptKey, grace_seconds: float, reason: str, cause: Cause = "stopped"
    ) -> None:
        """Stop the worker, or prevent its start. See `Driver.stop`."""
        directory = find_directory(self._directories, key)
        stop = new_stop_request(grace_seconds, reason, cause)
        await asyncio.to_thread(directory.request_stop, stop)
        self._supervise(directory)
        if supervisor := self._supervisor_of(key):
            supervisor.wake()

    def _supervisors(self) -> dict[AttemptKey, S]:
        return {key: supervised.supervisor for key, supervised in self._supervised.items()}

    def _supervisor_of(self, key: AttemptKey) -> S | None:
        supervised = self._supervised.get(key)
        return supervised.supervisor if supervised else None

    async def _end_supervision(self) -> None:
        tasks = [supervised.task for supervised in self._supervised.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _recoverable(self) -> list[RunDirectory]:
        unsettled = [each for each in self._directories.scan() if each.acknowledged_at is None]
        return [each for each in unsettled if self._is_own(each)]

    def _is_own(self, directory: RunDirectory) -> bool:
        try:
            spec = directory.read_spec()
        except UnreadableRecord:
            return self.owns_unreadable
        return spec.driver == self.name if spec is not None else self.owns_unreadable

    def _supervise(self, directory: RunDirectory) -> None:
        key = key_of(directory)
        if key in self._supervised:
            return

        def on_phase(phase: AttemptPhase) -> None:
            self._on_change(key, phase)

        supervisor = self._new_supervisor(directory, key, on_phase)
        task = asyncio.create_task(supervisor.run(), name=f"supervise {key}")
        self._supervised[key] = _Supervised(supervisor, task)
        task.add_done_callback(lambda task: self._on_supervised(key, task))

    def _on_supervised(self, key: AttemptKey, task: asyncio.Task[None]) -> None:
        del self._supervised[key]
        self._on_supervision_ended(key)
        if not task.cancelled() and (error := task.exception()):
            log.error("attempt_no_longer_supervised", attempt=str(key), exc_info=error)
