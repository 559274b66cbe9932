"""Distinguishes the kernel's OOM killer from any other sender of SIGKILL. Standard library only."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

_KILLED = re.compile(rb"Killed process (\d+) ")  # mm/oom_kill.c
_REPORT_SECONDS = 0.2
"""The kernel counts, kills, and only then reports; the process may be reaped before the report is there."""

_CGROUPS = Path("/sys/fs/cgroup")
_MAX_REPORT_BYTES = 8192  # of one record of /dev/kmsg: PRINTK_MESSAGE_MAX, with room to spare


class OomWitness:
    """Detects kills by the OOM killer since it was created.

    The kernel log names its victims, but not every user may read it, and in a container it names other PIDs.
    Then the counter of this process's own cgroup has to do.
    """

    def __init__(self) -> None:
        self._kills = _kills_on_machine()
        self._kills_here = _kills_in_own_cgroup()
        self._log = _open_kernel_log()

    def saw_kill_of(self, pid: int) -> bool:
        """True if the OOM killer ended this process, which was in the cgroup of the caller.

        Args:
            pid: A process that SIGKILL ended since this object was made.
        """
        if _kills_on_machine() == self._kills:
            return False
        return self._log_names(pid) or _kills_in_own_cgroup() > self._kills_here

    def _log_names(self, pid: int) -> bool:
        if self._log is None:
            return False
        deadline = time.monotonic() + _REPORT_SECONDS
        while True:
            for record in _records(self._log):
                found = _KILLED.search(record)
                if found and int(found[1]) == pid:
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)


def log_tells_of_group(name: str) -> bool:
    """True if the kernel log has an OOM kill in a control group, which may be gone by now.

    Args:
        name: Of a directory in the group's path; no other group ever has it.
    """
    log = _open_kernel_log(os.SEEK_SET)
    if log is None:
        return False
    try:
        limit_of = re.compile(rb"oom_memcg=[^,]*/" + re.escape(name.encode()) + rb"[/,]")  # mm/oom_kill.c
        return any(limit_of.search(record) for record in _records(log))
    finally:
        os.close(log)


def _records(log: int) -> Iterator[bytes]:
    """Those of the kernel log that there are and were not read."""
    while True:
        try:
            yield os.read(log, _MAX_REPORT_BYTES)
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # older records were overwritten; reading goes on with the oldest that is left


def _open_kernel_log(begin: int = os.SEEK_END) -> int | None:
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(descriptor, 0, begin)
    except OSError:
        return None
    return descriptor


def _kills_on_machine() -> int:
    return _counter(Path("/proc/vmstat"), "oom_kill")


def _kills_in_own_cgroup() -> int:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0" and (_CGROUPS / "cgroup.controllers").exists():
            return _counter(_CGROUPS / path.lstrip("/") / "memory.events", "oom_kill")
        if "memory" in controllers.split(","):
            return _counter(_CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control", "oom_kill")
    return 0


def _counter(file: Path, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
