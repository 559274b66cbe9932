"""A node as the tests see it: a process driver, what it told so far, and real workers to start and kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from agent import hosted_driver
from harness.waiting import await_until, wait_until

from runyard.agent.config.warm import WarmSettings
from runyard.agent.core.model import AttemptKey, AttemptPhase, Finished, Outcome, Running
from runyard.agent.drivers.process.driver import COLD, ProcessDriver
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import SpecRecord, WorkerRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

KEY = AttemptKey("run-a", 1)
"""The attempt of tests that need only one."""


def shell(script: str, *, grace_seconds: float = 10.0, cwd: str = "", worker_args: str = "") -> SpecRecord:
    """A worker that is a shell script."""
    return SpecRecord(
        argv=["/bin/sh", "-c", script],
        env={"PATH": os.environ["PATH"]},
        cwd=cwd,
        grace_seconds=grace_seconds,
        worker_args=worker_args,
    )


def python(script: str, *, worker_args: str = "") -> SpecRecord:
    """A worker that is a Python script."""
    return SpecRecord([sys.executable, "-I", "-S", "-c", script], env={}, worker_args=worker_args)


class Gate:
    """Lets workers end when the test says so.

    Args:
        path: The workers wait for this file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> None:
        """From now on the workers may end."""
        self.path.touch()


class Node:
    """A process driver over some run directories, and all that it told."""

    def __init__(self, directories: RunDirectories, warm: WarmSettings = COLD) -> None:
        self.directories = directories
        self.told: list[tuple[AttemptKey, AttemptPhase]] = []
        self.driver = ProcessDriver(directories, lambda key, phase: self.told.append((key, phase)), warm)

    def phases(self, key: AttemptKey = KEY) -> list[AttemptPhase]:
        """What the driver told of an attempt so far."""
        return [phase for told_key, phase in self.told if told_key == key]

    async def start(self, spec: SpecRecord, key: AttemptKey = KEY) -> RunDirectory:
        """Puts an attempt on disk and has it started."""
        directory = self.directories.create(key, spec)
        await self.driver.start(key)
        return directory

    async def running(self, key: AttemptKey = KEY) -> WorkerRecord:
        """The worker, as soon as the driver says that it runs."""
        await await_until(
            lambda: any(isinstance(phase, Running) for phase in self.phases(key)), lambda: self.phases(key)
        )
        directory = self.directories.open(key)
        assert directory is not None
        worker = directory.read_worker()
        assert worker is not None
        return worker

    async def outcome(self, key: AttemptKey = KEY) -> Outcome:
        """The outcome, as soon as the driver tells."""
        finished = await await_until(
            lambda: [phase for phase in self.phases(key) if isinstance(phase, Finished)],
            lambda: self.phases(key),
        )
        assert len(finished) == 1
        return finished[0].outcome


@contextmanager
def hosted_agent(directories: RunDirectories, key: AttemptKey = KEY) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that started an attempt, and is killed at the end of the block."""
    command = [sys.executable, hosted_driver.__file__, str(directories.state), key.run_id, str(key.attempt)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            assert b"start was asked for\n" in agent.stdout
            yield agent
        finally:
            agent.kill()


async def text_in(path: Path) -> str:
    """The content of a file, as soon as it has any."""
    return await await_until(lambda: path.read_text() if path.exists() else "", f"nothing in {path}")


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    stat = procfs.read_stat(pid)
    return stat is not None and not stat.is_over


def kill_everything(directories: RunDirectories) -> None:
    """Ends every shim and worker that the run directories know of, and what carries their mark."""
    for directory in directories.scan():
        try:
            worker = directory.read_worker()
        except Exception:
            continue
        if worker is not None and worker.boot_id == procfs.boot_id():
            for process in (worker.shim, worker.process):
                procfs.send_signal(process, signal.SIGKILL)
        wait_until(partial(_none_left, directory), f"cannot end {directory.path}")


def _none_left(directory: RunDirectory) -> bool:
    entry = f"RUNYARD_RUN_DIRECTORY={directory.path}"
    marked = procfs.with_environment(entry, procfs.all_processes().values())
    for process in marked:
        procfs.send_signal(process.identity, signal.SIGKILL)
    return not marked
