"""Keeps the copy of one container's output going, for as long as there is something to copy."""

import asyncio
import random
import time
from collections.abc import Callable

import structlog

from runyard.agent.drivers.docker.engine.client import Engine, EngineError
from runyard.agent.drivers.docker.engine.threads import DaemonThreads
from runyard.agent.drivers.docker.output import SILENCE, OutputCopy
from runyard.agent.supervisor.rundir import RunDirectory

THE_REST_WITHIN = 120.0
"""Seconds for the rest of the output of a container that is over; after an absence it may be much."""

_FIRST_PAUSE = 0.2

log = structlog.get_logger("runyard.agent.docker")


class Copying:
    """Copies the output of one container, in its own threads.

    Args:
        engine: Where the container is.
        container: Its name.
        directory: Of its attempt.
        on_end: Called when there is no more for now: the container has ended, or the engine has.
    """

    def __init__(
        self, engine: Engine, container: str, directory: RunDirectory, on_end: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._container = container
        self._directory = directory
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._log = log.bind(container=container)

    def prepare(self) -> None:
        """Note where the output will begin. Called before the container starts. Blocks."""
        self._new_copy().begin()

    def keep(self) -> None:
        """Start copying the output unless it is being copied."""
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name=f"copy {self._container}")

    async def end(self) -> None:
        """End the copying where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def finish(self) -> None:
        """Copy what is left of the output of a container that is over."""
        await self.end()
        rest = self._new_copy()
        try:
            async with asyncio.timeout(THE_REST_WITHIN):
                await DaemonThreads(1).run(lambda: rest.copy(follow=False))
        except (EngineError, OSError, TimeoutError) as error:
            self._log.warning("output_is_incomplete", error=str(error))
        finally:
            rest.close()

    def _new_copy(self) -> OutputCopy:
        return OutputCopy(self._engine, self._container, self._directory)

    async def _supervise(self) -> None:
        copy = self._new_copy()
        pause = _FIRST_PAUSE
        try:
            while True:
                began = time.monotonic()
                try:
                    await DaemonThreads(1).run(lambda: copy.copy(follow=True))
                    return
                except (EngineError, OSError) as error:
                    self._log.debug("copying_interrupted", error=str(error), pause_seconds=pause)
                pause = _FIRST_PAUSE if time.monotonic() - began > SILENCE / 2 else pause * 2
                await asyncio.sleep(min(pause, SILENCE) * random.uniform(0.5, 1.0))
        finally:
            copy.close()
            self._task = None
            self._on_end()
