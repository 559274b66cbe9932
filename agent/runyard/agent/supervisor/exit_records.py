"""The end of a worker: its exit record, and the clean-up of its processes.

Shared by the shim and by the processes that stand in for a dead one. Standard library only.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from resource import struct_rusage

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.procfs import ProcessStat
from runyard.agent.supervisor.records import Cause, ExitRecord, StopRequest
from runyard.agent.supervisor.rundir import DIRECTORY_NAME, RunDirectory


def ended(status: int, usage: struct_rusage | None, stop: StopRequest | None) -> ExitRecord:
    """The exit record of a worker, from its wait status.

    Args:
        status: As `os.wait4` gives it.
        usage: As `os.wait4` gives it; None if it was not measured.
        stop: The stop request that was delivered to the worker, if any.
    """
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    how = f"exited with code {code}" if signal_number is None else f"killed by {_signal_name(signal_number)}"
    cause: Cause = "exited" if signal_number is None else "signaled"
    return ExitRecord(
        cause=stop.cause if stop else cause,
        message=f"stopped ({stop.reason}): {how}" if stop else how,
        ended_at=time.time(),
        code=code,
        signal=signal_number,
        peak_rss_bytes=usage.ru_maxrss * 1024 if usage else 0,  # Linux counts in KiB: getrusage(2)
        user_seconds=usage.ru_utime if usage else 0.0,
        system_seconds=usage.ru_stime if usage else 0.0,
        stop_requested=stop is not None,
        why=stop.why if stop else "",
    )


def rebooted(stop: StopRequest | None) -> ExitRecord:
    """The exit record on an attempt whose machine was restarted under the worker."""
    if stop is not None and stop.cause == "node_shutdown":
        return never_started("node_shutdown", f"stopped ({stop.reason}): the machine was off before it ended")
    return never_started("node_lost", "the node was rebooted while the worker ran", "node_rebooted")


def never_started(cause: Cause, message: str, reason_code: str = "") -> ExitRecord:
    """The exit record on an attempt that ran no worker, or one whose end was not observed.

    Args:
        cause: Why it is over.
        message: One sentence for people.
        reason_code: See `ExitRecord.why`.
    """
    return ExitRecord(
        cause=cause, message=message, ended_at=time.time(), stop_requested=cause == "stopped", why=reason_code
    )


def killed_before_it_began() -> ExitRecord:
    """The exit record on an attempt whose shim died before it let the worker's program begin."""
    return never_started("start_failed", "the shim was killed before the worker's program began")


def stopped_before_start(stop: StopRequest) -> ExitRecord:
    """The exit record on an attempt whose stop came before its start."""
    return never_started("stopped", f"stopped before it started: {stop.reason}", stop.why)


def ran_out_of_memory(exit_record: ExitRecord) -> ExitRecord:
    """The exit record on a worker whose SIGKILL came from the kernel's OOM killer."""
    peak = in_mib(exit_record.peak_rss_bytes)
    message = f"killed by the kernel because it ran out of memory; its resident set had reached {peak}"
    return replace(exit_record, cause="oom_killed", message=message)


def in_mib(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**20:.0f} MiB"


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def remaining_processes(directory: RunDirectory, root: int | None) -> list[ProcessStat]:
    """The processes of an attempt that still run.

    Args:
        directory: The attempt.
        root: PID of the shim, or of the worker that outlives it; None after both. Not in the result.

    Returns:
        The descendants of `root`; once there are none, whatever names the run directory elsewhere.
    """
    processes = procfs.all_processes()
    if root is not None:
        family = [each for each in procfs.descendants(root, processes) if not each.is_over]
        if family:
            return family
    strangers = [each for pid, each in processes.items() if pid != os.getpid() and not each.is_over]
    return procfs.with_environment(f"{DIRECTORY_NAME}={directory.path}", strangers)


def running(pids: Iterable[int]) -> list[ProcessStat]:
    """Those of the processes that still run."""
    stats = [procfs.read_stat(pid) for pid in pids]
    return [stat for stat in stats if stat is not None and not stat.is_over]


def kill_all(processes: Iterable[ProcessStat]) -> bool:
    """Send SIGKILL to each of the processes.

    Returns:
        True if there may be more to kill. Those that refuse this user do not count: nothing can be done.
    """
    more = False
    for process in processes:
        with contextlib.suppress(PermissionError):
            procfs.send_signal(process.identity, signal.SIGKILL)
            more = True
    return more
