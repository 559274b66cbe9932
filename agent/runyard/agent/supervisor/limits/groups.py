"""Control groups of the kernel, each made for one attempt. Standard library only."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_CPU_PERIOD = 100_000
"""Microseconds, as the kernel's own default."""

_LEAST_CPU_QUOTA = 1_000
"""Microseconds; the kernel refuses less."""

_REMOVE_PAUSES = (0.001, 0.005, 0.02, 0.1, 0.2)
"""Seconds; a process leaves its group a moment after its end."""


class Group:
    """A group of processes that the kernel keeps within limits.

    Args:
        directories: Of version 2 one; of version 1 one for each controller, that of memory first.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)

    @property
    def is_there(self) -> bool:
        """True if it exists."""
        return all(each.is_dir() for each in self._directories)

    @property
    def ends_as_one(self) -> bool:
        """True if the whole group is killed when its memory is used up, not only the largest process."""
        return _word(self._directories[0] / "memory.oom.group") == "1"

    def make(self, memory: int, cpu: int) -> None:
        """Make the group.

        Args:
            memory: Bytes; 0 for no limit.
            cpu: Thousandths of a core; 0 for no limit.

        Raises:
            OSError: The kernel refuses; what was made is gone again.
        """
        try:
            for directory in self._directories:
                directory.mkdir()
            if memory:
                self._limit_memory(memory)
            if cpu:
                self._limit_cpu(cpu)
        except OSError:
            self.remove()
            raise

    def _limit_memory(self, limit: int) -> None:
        home = self._directories[0]
        if (home / "memory.limit_in_bytes").exists():
            _write(home / "memory.limit_in_bytes", limit)
            _write_if_there(home / "memory.memsw.limit_in_bytes", limit)
            return
        _write(home / "memory.max", limit)
        _write_if_there(home / "memory.swap.max", 0)
        _write_if_there(home / "memory.oom.group", 1)

    def _limit_cpu(self, thousandths: int) -> None:
        quota = max(_LEAST_CPU_QUOTA, thousandths * _CPU_PERIOD // 1000)
        home = self._directories[-1]
        if (home / "cpu.cfs_quota_us").exists():
            _write(home / "cpu.cfs_period_us", _CPU_PERIOD)
            _write(home / "cpu.cfs_quota_us", quota)
        else:
            _write(home / "cpu.max", f"{quota} {_CPU_PERIOD}")

    def take_in(self, pid: int) -> None:
        """Puts a process into the group; its children will be born there.

        Raises:
            OSError: The kernel refuses.
        """
        for directory in self._directories:
            _write(directory / "cgroup.procs", pid)

    def kills(self) -> int:
        """Number of processes of the group that the OOM killer has killed."""
        home = self._directories[0]
        return _counter(home / "memory.events", "oom_kill") or _counter(
            home / "memory.oom_control", "oom_kill"
        )

    def shortage(self) -> int | None:
        """An eventfd that signals when the group lacks memory, just before the kernel kills a process.

        It also signals when the group is removed.

        Returns:
            None if the kernel has none: those of version 2 end the group as one.
        """
        home, notified = self._directories[0], os.eventfd(0, os.EFD_CLOEXEC)
        try:
            control = os.open(home / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _write(home / "cgroup.event_control", f"{notified} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(notified)
            return None
        return notified

    def peak(self) -> int:
        """High-water mark of the group's memory in bytes; 0 if the kernel does not report it."""
        home = self._directories[0]
        word = _word(home / "memory.peak") or _word(home / "memory.max_usage_in_bytes")
        return int(word) if word.isdecimal() else 0

    def members(self) -> set[int]:
        """PIDs of the processes in the group, and in groups that they made below it."""
        return {pid for directory in self._directories for each in _tree(directory) for pid in _pids(each)}

    def remove(self) -> bool:
        """Remove the group, and those below it, if no process is left in them.

        Returns:
            False if it is still there.
        """
        left = [each for each in self._directories if not _remove(each)]
        return not left


def _remove(directory: Path) -> bool:
    for pause in (*_REMOVE_PAUSES, None):
        try:
            for each in _tree(directory):
                os.rmdir(each)
        except FileNotFoundError:
            return True
        except OSError:
            if pause is None:
                return False
            time.sleep(pause)
        else:
            return True
    return False


def _tree(directory: Path) -> Iterator[Path]:
    """The directory and those below it, from the deepest."""
    for path, _, _ in os.walk(directory, topdown=False):
        yield Path(path)


def _pids(directory: Path) -> list[int]:
    try:
        return [int(line) for line in (directory / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _write(file: Path, value: int | str) -> None:
    # Never made where it is missing: a directory of a disk is no control group.
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _write_if_there(file: Path, value: int | str) -> None:
    with contextlib.suppress(OSError):
        _write(file, value)


def _word(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _counter(file: Path, name: str) -> int:
    for line in _word(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
