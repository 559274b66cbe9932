"""The driver for containers of a Docker engine."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from runyard.agent.config.docker import DockerSettings
from runyard.agent.core.model import (
    AttemptKey,
    AttemptPhase,
    Finished,
    HeldAttempt,
    Running,
    Stopping,
)
from runyard.agent.drivers.base import MissingPrerequisite, OnChange
from runyard.agent.drivers.docker.cleaning import Cleaner
from runyard.agent.drivers.docker.container import Container
from runyard.agent.drivers.docker.engine.client import Engine, EngineError
from runyard.agent.drivers.docker.engine.events import OOM, EventWatch
from runyard.agent.drivers.docker.engine.prerequisites import missing_in_engine, unreachable
from runyard.agent.drivers.docker.plan.labels import container_name
from runyard.agent.drivers.docker.plan.plan import DRIVER_NAME
from runyard.agent.drivers.docker.supervise import ContainerSupervisor, DriverContext
from runyard.agent.drivers.docker.usage import UsageWatch
from runyard.agent.drivers.docker.watchdog import WatchdogClient
from runyard.agent.drivers.outcomes import held_attempt
from runyard.agent.drivers.run_directory_driver import RunDirectoryDriver
from runyard.agent.node.facts import WorkerUsage
from runyard.agent.supervisor.records import SpecRecord, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

PING_EVERY = 5.0
"""Seconds between two questions whether the engine is there."""

PING_WITHIN = 5.0
"""Seconds for the engine to answer that."""

log = structlog.get_logger("runyard.agent.docker")


class DockerDriver(RunDirectoryDriver[ContainerSupervisor]):
    """Runs each worker in its own container.

    Args:
        settings: How.
        directories: The attempts on this disk.
        on_change: Called for every phase that an attempt enters.
        agent: ID of the agent's installation, which marks its containers.
    """

    name = DRIVER_NAME

    def __init__(
        self, settings: DockerSettings, directories: RunDirectories, on_change: OnChange, agent: str
    ) -> None:
        super().__init__(directories, on_change)
        self.trouble = "the engine was not asked yet"
        self._agent = agent
        self._engine = Engine(settings)
        self._usage = UsageWatch(self._engine, self._live, self._last_output)
        watchdog = WatchdogClient(directories.state, settings)
        self._context = DriverContext(self._engine, settings, watchdog, self._usage.peak_of)
        self.cleaner = Cleaner(self._engine, settings, directories, agent)
        self._events: EventWatch | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin to watch the engine, be it there or not. See `Driver.open`."""
        loop = asyncio.get_running_loop()
        self._events = EventWatch(
            self._engine,
            self._agent,
            lambda name, action: _forward(loop, lambda: self._on_event(name, action)),
        )
        self._events.open()
        await self._ping()
        for work in (self._keep_pinging(), self._usage.keep(), self.cleaner.keep()):
            self._tasks.append(asyncio.create_task(work))

    def missing(self, spec: SpecRecord) -> MissingPrerequisite | None:
        """Asks the engine for image and networks. See `CheckingDriver.missing`."""
        return unreachable(self.trouble) if self.trouble else missing_in_engine(self._engine, spec)

    async def usage(self) -> dict[AttemptKey, WorkerUsage]:
        """The last measurement; never waits for the engine. See `Driver.usage`."""
        return self._usage.latest()

    async def close(self) -> None:
        """Stop watching. See `Driver.close`."""
        if self._events is not None:
            self._events.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end_supervision()

    def _held(self, directory: RunDirectory) -> HeldAttempt:
        return _held(directory)

    def _new_supervisor(
        self, directory: RunDirectory, key: AttemptKey, on_phase: Callable[[AttemptPhase], None]
    ) -> ContainerSupervisor:
        return ContainerSupervisor(
            directory, Container(self._engine, key, self._agent), self._context, on_phase
        )

    def _on_supervision_ended(self, key: AttemptKey) -> None:
        self._usage.forget(key)

    def _on_event(self, container: str | None, action: str) -> None:
        for key, supervisor in self._supervisors().items():
            if action == OOM and container == container_name(key):
                supervisor.ran_out_of_memory()
        self._wake(container)

    def _wake(self, container: str | None) -> None:
        for key, supervisor in self._supervisors().items():
            if container in (None, container_name(key)):
                supervisor.wake()

    def _live(self) -> list[AttemptKey]:
        return [key for key, supervisor in self._supervisors().items() if supervisor.is_running]

    def _last_output(self, key: AttemptKey) -> float | None:
        directory = self._directories.open(key)
        written = [path.stat() for path in _outputs(directory)] if directory else []
        return max((stat.st_mtime for stat in written if stat.st_size), default=None)

    async def _keep_pinging(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY)
            await self._ping()

    async def _ping(self) -> None:
        before = self.trouble
        try:
            await self._engine.call(lambda client: client.ping(), PING_WITHIN)
            self.trouble = ""
        except EngineError as error:
            self.trouble = str(error)
        if bool(before) != bool(self.trouble):
            log.info("engine", host=self._engine.host, trouble=self.trouble or None)
            self._wake(None)


def _held(directory: RunDirectory) -> HeldAttempt:
    """An attempt as its run directory has it; the engine is not asked."""
    held = held_attempt(directory)
    try:
        container = directory.read_container()
    except UnreadableRecord:
        return held
    if container is None or isinstance(held.phase, Finished):
        return held
    is_stopping = isinstance(held.phase, Stopping)
    return replace(held, phase=Stopping(container.pid) if is_stopping else Running(container.pid))


def _outputs(directory: RunDirectory) -> list[Path]:
    return [path for path in (directory.stdout, directory.stderr) if path.exists()]


def _forward(loop: asyncio.AbstractEventLoop, event: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(event)
