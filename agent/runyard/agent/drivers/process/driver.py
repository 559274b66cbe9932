"""The driver for plain processes on this machine."""

import asyncio
import sys
import time
from pathlib import Path

import structlog

from runyard.agent.config.warm import WarmSettings
from runyard.agent.core.model import Accepted, AttemptKey, AttemptPhase, Finished, HeldAttempt
from runyard.agent.drivers.base import DriverError, MissingPrerequisite, OnChange, UnknownAttempt
from runyard.agent.drivers.outcomes import held_attempt, key_of
from runyard.agent.drivers.process.fork_server_client import ForkServerClient
from runyard.agent.drivers.process.prerequisites import Prerequisites
from runyard.agent.drivers.process.start_limiter import StartLimiter
from runyard.agent.drivers.process.supervise import ProcessSupervisor
from runyard.agent.drivers.process.warm_servers import WarmServers
from runyard.agent.node.facts import UsageSampler, UsageTarget, WorkerUsage
from runyard.agent.supervisor import worker as worker_script
from runyard.agent.supervisor.records import Cause, SpecRecord, StopRequest, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

COLD = WarmSettings(mode="off")
"""Nothing is imported ahead of runs."""

log = structlog.get_logger("runyard.agent.drivers")


def worker_command(executable: str, verb: str, run_id: str) -> list[str]:
    """The command of a Dagster run worker. Its arguments go beside it, in `SpecRecord.worker_args`.

    Args:
        executable: Python interpreter of the code location; empty for the agent's own.
        verb: `execute_run` or `resume_run`.
        run_id: Shown to people who look at the process list.
    """
    return [executable or sys.executable, worker_script.__file__, verb, run_id]


class ProcessDriver:
    """Runs each worker as a process under a shim of its own.

    Args:
        directories: The attempts on this disk.
        on_change: Called for every phase that an attempt enters.
        warm: What is imported ahead of runs.
        max_concurrent_starts: How many workers may be starting up at once.

    Attributes:
        warm_servers: What runs are forks of.
    """

    name = "process"

    def __init__(
        self,
        directories: RunDirectories,
        on_change: OnChange,
        warm: WarmSettings = COLD,
        max_concurrent_starts: int = 1_000,
    ) -> None:
        self._directories = directories
        self._on_change = on_change
        log_path = directories.state / "forkserver.log"
        self._forks = ForkServerClient(
            log_path, self._on_running, lambda news: self.warm_servers.on_news(news)
        )
        self.warm_servers = WarmServers(warm, directories.state, self._forks)
        self._starts = StartLimiter(self._forks, self.warm_servers, max_concurrent_starts)
        self._supervisors: dict[AttemptKey, ProcessSupervisor] = {}
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}
        self._sampler = UsageSampler()
        self._requisites = Prerequisites()

    @property
    def fork_server_pid(self) -> int | None:
        """Process ID of the fork server; None while there is none."""
        return self._forks.pid

    async def open(self) -> None:
        """Starts the fork server. See `Driver.open`."""
        try:
            await self._forks.open()
        except OSError as error:
            raise DriverError(f"cannot start the fork server: {error}") from error
        self.warm_servers.open()

    async def recover(self) -> list[HeldAttempt]:
        """Takes up what is on disk. See `Driver.recover`."""
        found = []
        for directory in await asyncio.to_thread(self._recoverable):
            held = await asyncio.to_thread(held_attempt, directory)
            found.append(held)
            if not isinstance(held.phase, Accepted | Finished):
                self._supervise(directory)
        return found

    def missing(self, spec: SpecRecord) -> MissingPrerequisite | None:
        """Looks for program, directory, user and Dagster. See `CheckingDriver.missing`."""
        return self._requisites.missing(spec)

    async def start(self, key: AttemptKey) -> None:
        """Has the worker started. See `Driver.start`."""
        self._supervise(self._directory(key))

    async def stop(
        self, key: AttemptKey, grace_seconds: float, reason: str, cause: Cause = "stopped"
    ) -> None:
        """Has the worker stopped, or never started. See `Driver.stop`."""
        directory = self._directory(key)
        stop = StopRequest(grace_seconds, reason, requested_at=time.time(), cause=cause)
        await asyncio.to_thread(directory.request_stop, stop)
        self._supervise(directory)
        if supervisor := self._supervisors.get(key):
            supervisor.wake()

    async def usage(self) -> dict[AttemptKey, WorkerUsage]:
        """Measures the live workers. See `Driver.usage`."""
        targets: dict[AttemptKey, UsageTarget] = {
            key: supervisor.usage_target
            for key, supervisor in self._supervisors.items()
            if supervisor.usage_target
        }
        return await asyncio.to_thread(self._sampler.sample, targets)

    async def close(self) -> None:
        """Stops watching. See `Driver.close`."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._starts.close()
        await self.warm_servers.close()
        self._forks.close()

    def _recoverable(self) -> list[RunDirectory]:
        self._directories.sweep_unfinished()
        return [
            each for each in self._directories.scan() if each.acknowledged_at is None and self._is_mine(each)
        ]

    def _is_mine(self, directory: RunDirectory) -> bool:
        try:
            spec = directory.read_spec()
        except UnreadableRecord:
            return True  # somebody has to say that it is unreadable
        return spec is None or spec.driver == self.name

    def _directory(self, key: AttemptKey) -> RunDirectory:
        directory = self._directories.open(key)
        if directory is None:
            raise UnknownAttempt(f"attempt {key} is not on this node")
        return directory

    def _supervise(self, directory: RunDirectory) -> None:
        key = key_of(directory)
        if key in self._supervisors:
            return

        def on_phase(phase: AttemptPhase) -> None:
            self._on_change(key, phase)

        supervisor = ProcessSupervisor(directory, self._starts, on_phase)
        task = asyncio.create_task(supervisor.run(), name=f"follow {key}")
        self._supervisors[key] = supervisor
        self._tasks[key] = task
        task.add_done_callback(lambda task: self._on_supervised(key, task))

    def _on_supervised(self, key: AttemptKey, task: asyncio.Task[None]) -> None:
        del self._supervisors[key], self._tasks[key]
        if not task.cancelled() and (error := task.exception()):
            log.error("attempt_no_longer_followed", attempt=str(key), exc_info=error)

    def _on_running(self, path: Path) -> None:
        if supervisor := self._supervisors.get(key_of(RunDirectory(path))):
            supervisor.on_running()
