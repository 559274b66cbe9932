"""The loop that supervises one attempt until its outcome; drivers add what they observe and do.

    observe the disk and the worker  ->  act on what was observed  ->  wait until something may have changed

A supervisor trusts only what it observes, so it does not matter whether it started the worker itself or found
it after a restart of the agent.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from runyard.agent.core.model import AttemptPhase, Finished
from runyard.agent.drivers.outcomes import directory_deleted
from runyard.agent.supervisor.rundir import DirectoryGone, RunDirectory, RunDirectoryError
from runyard.common.backoff import Backoff

_DELETED_PAUSE_SECONDS = 2.0
"""Between two checks of a worker that outlives its run directory."""


class AttemptSupervisor(ABC):
    """Supervise one attempt until its outcome, and start its worker if necessary.

    Args:
        directory: The run directory of the attempt.
        on_phase: Called for each phase that the attempt enters.
        log: A bound structlog logger.
    """

    retried: ClassVar[tuple[type[Exception], ...]] = (OSError, RunDirectoryError)
    """Errors after which the loop tries again; any other one ends the supervision."""
    backoff: ClassVar[Backoff]

    def __init__(self, directory: RunDirectory, on_phase: Callable[[AttemptPhase], None], log: Any) -> None:
        self._directory = directory
        self._on_phase = on_phase
        self._log = log
        self._phase: AttemptPhase | None = None
        self._changed = asyncio.Event()
        self._is_deletion_logged = False

    def wake(self) -> None:
        """Make the supervisor observe again at once, for example because a stop request was written."""
        self._changed.set()

    async def run(self) -> None:
        """Return when the attempt is over and `on_phase` was called with its outcome."""
        failures = 0
        try:
            while True:
                try:
                    self._changed.clear()
                    if await self._run_once():
                        return
                    failures = 0
                except self.retried as error:
                    failures += 1
                    pause = self.backoff.steady_pause(failures)
                    self._log.warning("attempt_needs_another_look", error=str(error), pause_seconds=pause)
                    await self._wait(pause)
        finally:
            await self._release()

    async def _run_once(self) -> bool:
        try:
            if await asyncio.to_thread(self._directory.path.is_dir):
                return await self._observe_and_act()
        except (DirectoryGone, FileNotFoundError):
            if not await self._is_deleted():
                raise
        if await self._is_deleted():
            return await self._on_directory_deleted()
        raise DirectoryGone(f"{self._directory.path} is not there; is its disk mounted?")

    async def _is_deleted(self) -> bool:
        return await asyncio.to_thread(lambda: self._directory.is_deleted)

    async def _on_directory_deleted(self) -> bool:
        """End the supervision once the worker is over; nothing can be recorded any more."""
        if not self._is_deletion_logged:
            self._log.warning("run_directory_deleted", path=str(self._directory.path))
            self._is_deletion_logged = True
        if await self._may_be_alive():
            await self._wait(_DELETED_PAUSE_SECONDS)
            return False
        self._enter(Finished(directory_deleted()))
        return True

    @abstractmethod
    async def _may_be_alive(self) -> bool:
        """False if the worker is proven over; called when the run directory was deleted."""

    @abstractmethod
    async def _observe_and_act(self) -> bool:
        """One round of the loop; true when the attempt is over."""

    @abstractmethod
    async def _release(self) -> None:
        """Release what the supervisor holds; called once, at the end of the loop."""

    def _enter(self, phase: AttemptPhase) -> None:
        if phase != self._phase:
            self._phase = phase
            self._on_phase(phase)

    async def _wait(self, seconds: float | None) -> None:
        """Wait until woken, or for so many seconds; None means without limit."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
