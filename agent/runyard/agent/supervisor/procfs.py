"""Processes in /proc: identities that survive PID reuse, family trees, safe signals.

Standard library only: the fork server and the shims live on this module.
"""

import ctypes
import fcntl
import os
import signal
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_PR_SET_NAME = 15  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h

# linux/pidfd.h: PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info), the struct in its first size of 64 bytes
# (Linux 6.13); the exit status is filled in from Linux 6.15 on.
_PIDFD_INFO = struct.Struct("QQ11Ii")
_PIDFD_GET_INFO = (3 << 30) | (_PIDFD_INFO.size << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT = 1 << 3


@dataclass(frozen=True)
class ProcessIdentity:
    """Names one process of this boot for ever: a PID alone may be given to another process later."""

    pid: int
    start_time: int
    """Clock ticks from boot to the start of the process: field 22 of /proc/pid/stat."""


@dataclass(frozen=True)
class ProcessStat:
    """Fields of /proc/pid/stat."""

    identity: ProcessIdentity
    parent: int
    state: str
    cpu_ticks: int
    rss_bytes: int
    wait_status: int
    """Of a process that is over, if this user may know it; 0 otherwise."""

    @property
    def is_over(self) -> bool:
        """True for a process that has ended and merely awaits its reaper."""
        return self.state in "ZX"


def boot_id() -> str:
    """The kernel's boot ID. Another one proves that all processes from before are gone."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def boottime() -> float:
    """Seconds since the machine started, including sleep. This clock cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_stat(pid: int) -> ProcessStat | None:
    """The process that now has this PID; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses itself, so the fields count from the last one.
    fields = line[line.rindex(b")") + 2 :].split()
    return ProcessStat(
        identity=ProcessIdentity(pid, int(fields[19])),
        state=fields[0].decode(),
        parent=int(fields[1]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
        wait_status=int(fields[49]),
    )


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the process that now has this PID; None if there is none."""
    stat = read_stat(pid)
    return stat.identity if stat else None


def is_alive(process: ProcessIdentity) -> bool:
    """True while exactly this process runs; a zombie does not."""
    stat = read_stat(process.pid)
    return stat is not None and stat.identity == process and not stat.is_over


def all_processes() -> dict[int, ProcessStat]:
    """Every process in sight, by PID."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return {stat.identity.pid: stat for stat in map(read_stat, pids) if stat is not None}


def descendants(root: int, processes: Mapping[int, ProcessStat]) -> list[ProcessStat]:
    """The children of `root` and their children, and so on, without `root`; parents before children."""
    children: dict[int, list[ProcessStat]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat)
    found: list[ProcessStat] = []
    wave = children.pop(root, [])
    while wave:
        found += wave
        wave = [child for parent in wave for child in children.pop(parent.identity.pid, [])]
    return found


def with_environment(entry: str, processes: Iterable[ProcessStat]) -> list[ProcessStat]:
    """Those of the processes that were started with `entry` (``NAME=value``) in their environment.

    Processes whose environment this user may not read are left out.
    """
    return [stat for stat in processes if entry.encode() in _read_environment(stat.identity.pid)]


def variable_of(pid: int, name: str) -> str | None:
    """The value of a variable with which a process was started; None also if this user may not know."""
    prefix = f"{name}=".encode()
    values = [entry for entry in _read_environment(pid) if entry.startswith(prefix)]
    return os.fsdecode(values[0].removeprefix(prefix)) if values else None


def _read_environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def peak_rss_bytes(pid: int) -> int:
    """Largest resident set that the process ever had; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024  # the kernel says kB and means KiB
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def open_pidfd(process: ProcessIdentity) -> int | None:
    """A file descriptor for exactly this process, readable when it ends; None if it is gone and reaped."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    # The PID can no longer change hands while the descriptor is open, so this look is final.
    if identify(process.pid) == process:
        return pidfd
    os.close(pidfd)
    return None


def send_signal(process: ProcessIdentity, signal_number: int) -> bool:
    """Signal exactly this process, never a stranger who inherited its PID.

    Returns:
        False if the process is gone.
    """
    pidfd = open_pidfd(process)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, signal_number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def wait_status(process: ProcessIdentity, pidfd: int | None) -> int | None:
    """Wait status of an ended process, as `os.wait4` reported it to its parent.

    Args:
        process: A process that is over.
        pidfd: Of that process, opened while it was there; None if that was missed.

    Returns:
        None if it is lost. Of a reaped process, only Linux 6.15 and later report it, by the pidfd.
    """
    stat = read_stat(process.pid)
    if stat is not None and stat.identity == process:
        return stat.wait_status if stat.is_over and _may_know_status(process.pid) else None
    return None if pidfd is None else _wait_status_of_reaped(pidfd)


def _may_know_status(pid: int) -> bool:
    # To others, as after a set-user-ID program, the kernel shows 0, which must not be taken for success.
    try:
        owner = os.stat(f"/proc/{pid}")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.geteuid() == 0 or (owner.st_uid, owner.st_gid) == (os.geteuid(), os.getegid())


def _wait_status_of_reaped(pidfd: int) -> int | None:
    buffer = bytearray(_PIDFD_INFO.size)
    struct.pack_into("Q", buffer, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    info = _PIDFD_INFO.unpack(buffer)
    return int(info[-1]) if info[0] & _PIDFD_INFO_EXIT else None


def become_subreaper() -> None:
    """Make orphaned descendants children of this process instead of PID 1's. Not inherited by forks."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def give_up_new_privileges() -> None:
    """Keep this process, and all that it starts, from getting more rights by set-user-ID programs."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def rename_process(name: str) -> None:
    """Set the name that `ps` and `top` show; at most 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()))


def _prctl(option: int, argument: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
