"""The driver for plain processes on this machine."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from runyard.agent.config.warm import WarmSettings
from runyard.agent.core.model import AttemptKey, AttemptPhase, HeldAttempt
from runyard.agent.drivers.base import DriverError, MissingPrerequisite, OnChange
from runyard.agent.drivers.outcomes import key_of
from runyard.agent.drivers.process.fork_server_client import ForkServerClient
from runyard.agent.drivers.process.prerequisites import Prerequisites
from runyard.agent.drivers.process.start_limiter import StartLimiter
from runyard.agent.drivers.process.supervise import ProcessSupervisor
from runyard.agent.drivers.process.warm_servers import WarmServers
from runyard.agent.drivers.run_directory_driver import RunDirectoryDriver
from runyard.agent.node.facts import UsageSampler, WorkerUsage
from runyard.agent.supervisor import worker as worker_script
from runyard.agent.supervisor.records import SpecRecord, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory, RunDirectoryError

COLD = WarmSettings(mode="off")
"""Nothing is imported ahead of runs."""


_WORKER_SCRIPTS = ("/runyard/agent/worker.py", "/runyard/agent/supervisor/worker.py")
"""Ends of the script's path: in 0.1.0, and since."""


def worker_command(executable: str, verb: str, run_id: str) -> list[str]:
    """The command of a Dagster run worker. Its arguments go beside it, in `SpecRecord.worker_args`.

    Args:
        executable: Python interpreter of the code location; empty for the agent's own.
        verb: `execute_run` or `resume_run`.
        run_id: Shown to people who look at the process list.
    """
    return [executable or sys.executable, worker_script.__file__, verb, run_id]


class ProcessDriver(RunDirectoryDriver[ProcessSupervisor]):
    """Runs each worker as a process under its own shim.

    Args:
        directories: The attempts on this disk.
        on_change: Called for every phase that an attempt enters.
        warm: What is imported ahead of runs.
        max_concurrent_starts: How many workers may be starting up at once.

    Attributes:
        warm_servers: Processes that workers are forked from.
    """

    name = "process"
    owns_unreadable = True

    def __init__(
        self,
        directories: RunDirectories,
        on_change: OnChange,
        warm: WarmSettings = COLD,
        max_concurrent_starts: int = 1_000,
    ) -> None:
        super().__init__(directories, on_change)
        log_path = directories.state / "forkserver.log"
        self._forks = ForkServerClient(
            log_path, self._on_running, lambda news: self.warm_servers.on_news(news)
        )
        self.warm_servers = WarmServers(warm, directories.state, self._forks)
        self._starts = StartLimiter(self._forks, self.warm_servers, max_concurrent_starts)
        self._sampler = UsageSampler()
        self._prerequisites = Prerequisites()

    @property
    def fork_server_pid(self) -> int | None:
        """Process ID of the fork server; None while there is none."""
        return self._forks.pid

    async def open(self) -> None:
        """Start the fork server. See `Driver.open`."""
        try:
            await self._forks.open()
        except OSError as error:
            raise DriverError(f"cannot start the fork server: {error}") from error
        self.warm_servers.open()

    def missing(self, spec: SpecRecord) -> MissingPrerequisite | None:
        """Looks for program, directory, user and Dagster. See `CheckingDriver.missing`."""
        return self._prerequisites.missing(spec)

    async def usage(self) -> dict[AttemptKey, WorkerUsage]:
        """Measure the live workers. See `Driver.usage`."""
        supervisors = self._supervisors().items()
        targets = {key: each.usage_target for key, each in supervisors if each.usage_target}
        return await asyncio.to_thread(self._sampler.sample, targets)

    async def close(self) -> None:
        """Stop supervising. See `Driver.close`."""
        await self._end_supervision()
        await self._starts.close()
        await self.warm_servers.close()
        self._forks.close()

    def _recoverable(self) -> list[RunDirectory]:
        self._directories.sweep_unfinished()
        return super()._recoverable()

    def _held(self, directory: RunDirectory) -> HeldAttempt:
        with contextlib.suppress(UnreadableRecord, RunDirectoryError):
            _use_installed_worker_script(directory)
        return super()._held(directory)

    def _new_supervisor(
        self, directory: RunDirectory, key: AttemptKey, on_phase: Callable[[AttemptPhase], None]
    ) -> ProcessSupervisor:
        return ProcessSupervisor(directory, self._starts, on_phase)

    def _on_running(self, path: Path) -> None:
        if supervisor := self._supervisor_of(key_of(RunDirectory(path))):
            supervisor.on_running()


def _use_installed_worker_script(directory: RunDirectory) -> None:
    """Correct the path of the worker script in an attempt that an agent accepted before it was upgraded.

    Releases have the script in different folders, and an upgrade may replace the whole environment.
    """
    spec = directory.read_spec()
    script = spec.argv[1] if spec is not None and len(spec.argv) > 1 else ""
    if spec is not None and script.endswith(_WORKER_SCRIPTS) and not os.path.exists(script):
        directory.replace_argv([spec.argv[0], worker_script.__file__, *spec.argv[2:]])
