"""A driver that starts nothing: for demos, and for tests of everything around the workers.

def script(key: AttemptKey) -> FakeRun:
    return FakeRun(run_for=0.2, exit_code=1)

driver = FakeDriver(directories, on_change, script)
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from runyard.agent.core.model import (
    AttemptKey,
    Finished,
    HeldAttempt,
    Running,
    Starting,
    Stopping,
)
from runyard.agent.drivers.base import OnChange
from runyard.agent.drivers.outcomes import held_attempt, outcome_of
from runyard.agent.drivers.run_directory_driver import find_directory, new_stop_request
from runyard.agent.node.capacity import Capacity
from runyard.agent.node.facts import WorkerUsage
from runyard.agent.supervisor.exit_records import never_started, stopped_before_start
from runyard.agent.supervisor.records import Cause, ExitRecord, StopRequest
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

FIRST_PID = 5_000_000
"""Process IDs of fake workers begin here: above what Linux ever gives to a process (2^22)."""


@dataclass(frozen=True)
class FakeRun:
    """Behaviour of a fake worker."""

    run_for: float = 0.0
    """Seconds from its start to its end."""
    exit_code: int = 0
    start_error: str = ""
    """Not empty: the worker cannot start, and this is why."""
    stderr: str = ""
    """What it writes when it starts."""
    heeds_stop: bool = True
    """False: the worker goes on after a stop until its grace period is over, and is then killed."""


class FakeDriver:
    """Plays workers from a script, with run directories as real as any other driver's.

    Args:
        directories: The attempts on this disk.
        on_change: Called for every phase that an attempt enters.
        script: What the worker of an attempt does.
    """

    name = "fake"

    def __init__(
        self,
        directories: RunDirectories,
        on_change: OnChange,
        script: Callable[[AttemptKey], FakeRun] = lambda key: FakeRun(),
    ) -> None:
        self._directories = directories
        self._on_change = on_change
        self._script = script
        self._pids = itertools.count(FIRST_PID)
        self._stops: dict[AttemptKey, asyncio.Event] = {}
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Do nothing. See `Driver.open`."""

    async def recover(self) -> list[HeldAttempt]:
        """Take up what is on disk; what was being played ended unseen. See `Driver.recover`."""
        self._directories.sweep_unfinished()
        found = []
        for directory in self._directories.scan():
            spec = directory.read_spec()
            if directory.acknowledged_at is not None or (spec and spec.driver != self.name):
                continue
            if directory.is_starting:
                directory.write_exit(never_started("exit_unknown", "the fake driver was restarted"))
            found.append(held_attempt(directory))
        return found

    async def start(self, key: AttemptKey) -> None:
        """Plays the worker. See `Driver.start`."""
        directory = find_directory(self._directories, key)
        if key not in self._tasks and not directory.is_starting and directory.read_exit() is None:
            self._stops[key] = asyncio.Event()
            task = asyncio.create_task(self._play(key, directory, self._script(key)))
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key))

    async def stop(
        self, key: AttemptKey, grace_seconds: float, reason: str, cause: Cause = "stopped"
    ) -> None:
        """Ends the play, or keeps it from beginning. See `Driver.stop`."""
        directory = find_directory(self._directories, key)
        stop = new_stop_request(grace_seconds, reason, cause)
        directory.request_stop(stop)
        if key in self._tasks:
            self._stops[key].set()
        elif not directory.is_starting:
            self._finish(key, directory, stopped_before_start(stop))

    async def usage(self) -> dict[AttemptKey, WorkerUsage]:
        """Nothing at all for each live worker. See `Driver.usage`."""
        return {key: WorkerUsage(0.0, 0, 0, None) for key in self._tasks}

    async def close(self) -> None:
        """End all plays where they are. See `Driver.close`."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _play(self, key: AttemptKey, directory: RunDirectory, run: FakeRun) -> None:
        self._on_change(key, Starting())
        directory.mark_starting()
        if run.start_error:
            self._finish(key, directory, never_started("start_failed", run.start_error))
            return
        directory.stdout.touch()
        directory.stderr.write_text(run.stderr)
        pid = next(self._pids)
        self._on_change(key, Running(pid))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stops[key].wait(), run.run_for)
        stop = directory.read_stop()
        if stop is None:
            code = run.exit_code
            exit_record = ExitRecord("exited", f"exited with code {code}", ended_at=time.time(), code=code)
        else:
            self._on_change(key, Stopping(pid))
            exit_record = await _play_stop(run, stop)
        self._finish(key, directory, exit_record)

    def _finish(self, key: AttemptKey, directory: RunDirectory, exit_record: ExitRecord) -> None:
        if directory.write_exit(exit_record):
            self._on_change(key, Finished(outcome_of(exit_record, directory)))


class FakeClusterDriver(FakeDriver):
    """Plays a whole cluster, which grows and shrinks as `now` is set."""

    def __init__(
        self,
        directories: RunDirectories,
        on_change: OnChange,
        capacity: Capacity,
        script: Callable[[AttemptKey], FakeRun] = lambda key: FakeRun(),
    ) -> None:
        super().__init__(directories, on_change, script)
        self.now = capacity

    async def capacity(self) -> Capacity:
        """As it was set. See `ClusterDriver.capacity`."""
        return self.now


async def _play_stop(run: FakeRun, stop: StopRequest) -> ExitRecord:
    how = f"stopped ({stop.reason})"
    if run.heeds_stop:
        return ExitRecord("stopped", how, ended_at=time.time(), code=0, stop_requested=True)
    await asyncio.sleep(stop.grace_seconds)
    return ExitRecord("stopped", f"{how}: killed", ended_at=time.time(), signal=9, stop_requested=True)
