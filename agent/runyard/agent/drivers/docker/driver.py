"""The driver for containers of a Docker engine."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from runyard.agent.config.docker import DockerSettings
from runyard.agent.core.model import (
    Accepted,
    AttemptKey,
    AttemptPhase,
    Finished,
    HeldAttempt,
    Running,
    Stopping,
)
from runyard.agent.drivers.base import MissingPrerequisite, OnChange, UnknownAttempt
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
from runyard.agent.drivers.outcomes import held_attempt, key_of
from runyard.agent.node.facts import WorkerUsage
from runyard.agent.supervisor.records import Cause, SpecRecord, StopRequest, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

PING_EVERY = 5.0
"""Seconds between two questions whether the engine is there."""

PING_WITHIN = 5.0
"""Seconds for the engine to answer that."""

log = structlog.get_logger("runyard.agent.docker")


@dataclass(frozen=True)
class _Supervised:
    supervisor: ContainerSupervisor
    task: asyncio.Task[None]


class DockerDriver:
    """Runs each worker in a container of its own.

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
        self.trouble = "the engine was not asked yet"
        self._directories = directories
        self._on_change = on_change
        self._agent = agent
        self._engine = Engine(settings)
        self._supervised: dict[AttemptKey, _Supervised] = {}
        self._usage = UsageWatch(self._engine, self._live, self._last_output)
        watchdog = WatchdogClient(directories.state, settings)
        self._around = DriverContext(self._engine, settings, watchdog, self._usage.peak_of)
        self.cleaner = Cleaner(self._engine, settings, directories, agent)
        self._events: EventWatch | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begins to watch the engine, be it there or not. See `Driver.open`."""
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

    async def recover(self) -> list[HeldAttempt]:
        """Takes up what is on disk, whether the engine answers or not. See `Driver.recover`."""
        found = []
        for directory in await asyncio.to_thread(self._recoverable):
            held = await asyncio.to_thread(_held, directory)
            found.append(held)
            if not isinstance(held.phase, Accepted | Finished):
                self._supervise(directory)
        return found

    def missing(self, spec: SpecRecord) -> MissingPrerequisite | None:
        """Asks the engine for image and networks. See `CheckingDriver.missing`."""
        return unreachable(self.trouble) if self.trouble else missing_in_engine(self._engine, spec)

    async def start(self, key: AttemptKey) -> None:
        """Has the container made and started. See `Driver.start`."""
        self._supervise(self._directory(key))

    async def stop(
        self, key: AttemptKey, grace_seconds: float, reason: str, cause: Cause = "stopped"
    ) -> None:
        """Has the container stopped, or never started. See `Driver.stop`."""
        directory = self._directory(key)
        stop = StopRequest(grace_seconds, reason, requested_at=time.time(), cause=cause)
        await asyncio.to_thread(directory.request_stop, stop)
        self._supervise(directory)
        self._wake(container_name(key))

    async def usage(self) -> dict[AttemptKey, WorkerUsage]:
        """What was measured last; never waits for the engine. See `Driver.usage`."""
        return self._usage.latest()

    async def close(self) -> None:
        """Stops watching. See `Driver.close`."""
        if self._events is not None:
            self._events.close()
        tasks = [*self._tasks, *(supervised.task for supervised in self._supervised.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _recoverable(self) -> list[RunDirectory]:
        return [
            each for each in self._directories.scan() if each.acknowledged_at is None and self._is_mine(each)
        ]

    def _is_mine(self, directory: RunDirectory) -> bool:
        try:
            spec = directory.read_spec()
        except UnreadableRecord:
            return False  # the driver for processes says so
        return spec is not None and spec.driver == self.name

    def _directory(self, key: AttemptKey) -> RunDirectory:
        directory = self._directories.open(key)
        if directory is None:
            raise UnknownAttempt(f"attempt {key} is not on this node")
        return directory

    def _supervise(self, directory: RunDirectory) -> None:
        key = key_of(directory)
        if key in self._supervised:
            return

        def on_phase(phase: AttemptPhase) -> None:
            self._on_change(key, phase)

        container = Container(self._engine, key, self._agent)
        supervisor = ContainerSupervisor(directory, container, self._around, on_phase)
        task = asyncio.create_task(supervisor.run(), name=f"follow {key}")
        self._supervised[key] = _Supervised(supervisor, task)
        task.add_done_callback(lambda task: self._on_supervised(key, task))

    def _on_supervised(self, key: AttemptKey, task: asyncio.Task[None]) -> None:
        del self._supervised[key]
        self._usage.forget(key)
        if not task.cancelled() and (error := task.exception()):
            log.error("attempt_no_longer_followed", attempt=str(key), exc_info=error)

    def _on_event(self, container: str | None, action: str) -> None:
        if action == OOM:
            for key, supervised in self._supervised.items():
                if container == container_name(key):
                    supervised.supervisor.ran_out_of_memory()
        self._wake(container)

    def _wake(self, container: str | None) -> None:
        for key, supervised in self._supervised.items():
            if container in (None, container_name(key)):
                supervised.supervisor.wake()

    def _live(self) -> list[AttemptKey]:
        return [key for key, supervised in self._supervised.items() if supervised.supervisor.is_running]

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
