"""Ends what attempts left behind: only what is provably Runyard's, of attempts that are provably over."""

import os
import shutil
import signal
from pathlib import Path

from runyard.agent.core.model import AttemptKey
from runyard.agent.node.isolation_backends import IsolationBackend
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.exit_records import kill_all, running
from runyard.agent.supervisor.procfs import ProcessStat
from runyard.agent.supervisor.records import UnreadableRecord
from runyard.agent.supervisor.rundir import DIRECTORY_NAME, RunDirectories, RunDirectory

_PASSES = 5
"""An orphan that forks while it is killed needs another pass; one that forks without end is left alone."""


def sweep(directories: RunDirectories) -> dict[int, RunDirectory]:
    """Kill every process that was started for an attempt of these directories whose exit is on disk.

    A process is known by its environment, which names its run directory. While a shim holds the lock of that
    directory, the process is the shim's to end.

    Returns:
        The attempts that the killed processes belonged to, by PID.
    """
    killed: dict[int, RunDirectory] = {}
    for _ in range(_PASSES):
        orphans = _orphans(directories)
        if not orphans:
            break
        for stat, directory in orphans:
            if procfs.send_signal(stat.identity, signal.SIGKILL):
                killed[stat.identity.pid] = directory
    return killed


def sweep_resources(directories: RunDirectories, backend: IsolationBackend, scratch: Path | None) -> None:
    """Remove control groups and scratch directories of attempts that are over, with what runs in the groups.

    Args:
        directories: The attempts on this disk.
        backend: Its groups are this agent's alone, so one of an attempt that is on no disk is removed too.
        scratch: Holds scratch directories, perhaps also those of other agents.
    """
    for name, group in backend.groups():
        directory = _named(directories, name)
        if directory is None or _is_over(directory):
            kill_all(running(group.members()))
            group.remove()
    for path in scratch.iterdir() if scratch is not None and scratch.is_dir() else ():
        directory = _named(directories, path.name)
        if directory is not None and _is_over(directory):
            shutil.rmtree(path, ignore_errors=True)


def _named(directories: RunDirectories, name: str) -> RunDirectory | None:
    run_id, _, attempt = name.rpartition("-")
    try:
        return directories.open(AttemptKey(run_id, int(attempt)))
    except ValueError:
        return None


def _orphans(directories: RunDirectories) -> list[tuple[ProcessStat, RunDirectory]]:
    found = []
    for pid, stat in procfs.all_processes().items():
        named = None if pid == os.getpid() or stat.is_over else procfs.variable_of(pid, DIRECTORY_NAME)
        directory = RunDirectory(Path(named)) if named else None
        if directory is not None and directory.state == directories.state and _is_over(directory):
            found.append((stat, directory))
    return found


def _is_over(directory: RunDirectory) -> bool:
    try:
        return directory.read_exit() is not None and not directory.is_locked()
    except (OSError, UnreadableRecord):
        return False
