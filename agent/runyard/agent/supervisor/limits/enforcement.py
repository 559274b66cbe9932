"""Keeps the processes of one attempt within its limits, and reports when they were exceeded.

The shim confines its worker before the worker's program begins. A stand-in for a dead shim takes up
what it finds: a control group holds by itself, and the watchdog goes on from there. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from dataclasses import replace
from pathlib import Path

from runyard.agent.supervisor.exit_records import in_mib
from runyard.agent.supervisor.limits import scope
from runyard.agent.supervisor.limits.groups import Group
from runyard.agent.supervisor.limits.plan import SYSTEMD, LimitsPlan
from runyard.agent.supervisor.limits.tree import family, proportional_bytes, resident_bytes
from runyard.agent.supervisor.oom import log_tells_of_group
from runyard.agent.supervisor.records import ExitRecord
from runyard.agent.supervisor.retry import complain

DATA_FACTOR = 4
"""Under the watchdog no process may even ask for more than its memory limit times this (RLIMIT_DATA).

What is asked for and never touched counts too, so there has to be room; for real use the watchdog is there.
"""

_LOOK_AT_GROUP = 0.1
"""Seconds between two looks at a group of which the kernel ends only the largest process."""

_SHORTEST_LOOK, _LONGEST_LOOK = 0.05, 1.0
_FASTEST_GROWTH = 4 << 30
"""Bytes that a run is thought to fill in a second at most: the less room, the sooner the next look."""


class Unlimited:
    """Nothing is enforced."""

    def look_in(self) -> float | None:
        """Seconds until `is_exceeded` should be asked; None if there is no need."""
        return None

    def is_exceeded(self) -> bool:
        """Looks whether the attempt has to end because it went beyond its limit."""
        return False

    def members(self) -> set[int]:
        """PIDs that certainly belong to the attempt."""
        return set()

    def classify(self, exit_record: ExitRecord) -> ExitRecord:
        """The exit record on the worker, with what is known of its limits."""
        return exit_record

    def remove(self) -> None:
        """Remove what was made; called when no process of the attempt is left."""


class Grouped(Unlimited):
    """A control group, which the kernel watches."""

    def __init__(self, plan: LimitsPlan, group: Group) -> None:
        self._limit = plan.memory
        self._unit = plan.unit
        self._group = group
        self._ends_as_one = group.ends_as_one
        self._is_short = False

    def end_at_once(self, worker: int) -> None:
        """Kill the worker when its group lacks memory, before it can react to the kill of a child.

        The kernel of version 1 ends only the largest process. A worker would go on, and end in its own way.
        """
        shortage = self._group.shortage() if self._limit and not self._ends_as_one else None
        if shortage is None:
            return
        try:
            known = os.pidfd_open(worker)
        except OSError:  # before Linux 5.3; the looks go on
            os.close(shortage)
            return
        threading.Thread(target=self._end_when_short, args=(shortage, known), daemon=True).start()

    def _end_when_short(self, shortage: int, worker: int) -> None:
        os.eventfd_read(shortage)
        self._is_short = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(worker, signal.SIGKILL)
        os.close(shortage)
        os.close(worker)

    def look_in(self) -> float | None:
        return _LOOK_AT_GROUP if self._limit and not self._ends_as_one else None

    def is_exceeded(self) -> bool:
        return self._limit > 0 and (self._is_short or self._group.kills() > 0)

    def members(self) -> set[int]:
        return self._group.members()

    def classify(self, exit_record: ExitRecord) -> ExitRecord:
        peak = self._group.peak() or exit_record.peak_rss_bytes
        known = replace(exit_record, memory_limit_bytes=self._limit, peak_rss_bytes=peak)
        return _beyond_limit(known, "the kernel") if self.is_exceeded() or self._is_lost() else known

    def _is_lost(self) -> bool:
        """True if the kernel killed in a group that is gone: systemd removes empty scopes."""
        is_gone = bool(self._limit and self._unit) and not self._group.is_there
        return is_gone and log_tells_of_group(self._unit)

    def remove(self) -> None:
        self._group.remove()


class Watched(Unlimited):
    """A watchdog that checks the memory of the process family periodically.

    Args:
        plan: Its limits; that of CPU is not enforced.
        root: The process whose descendants are counted.
        counts_root: Whether the process itself is counted too.
        mark: Made when the limit is exceeded. Without a shim there may be two watchdogs, and the one that
            kills the worker is not always the one that records its end. None: there is only this one.
    """

    def __init__(self, plan: LimitsPlan, root: int, counts_root: bool, mark: Path | None = None) -> None:
        self._mark = mark
        self._limit = plan.memory
        self._root = root
        self._own = [root] if counts_root else []
        self._peak = 0
        self._is_exceeded = False
        self._room = 0

    def look_in(self) -> float | None:
        if not self._limit:
            return None
        return min(max(self._room / _FASTEST_GROWTH, _SHORTEST_LOOK), _LONGEST_LOOK)

    def is_exceeded(self) -> bool:
        if self._limit and not self._is_exceeded:
            taken = self._measure()
            self._peak = max(self._peak, taken)
            self._room = max(0, self._limit - taken)
            self._is_exceeded = taken > self._limit
            if self._is_exceeded and self._mark is not None:
                with contextlib.suppress(OSError):  # a full disk must not keep the worker alive
                    self._mark.touch(mode=0o600)
        return self._is_exceeded

    def _measure(self) -> int:
        pids = [*self._own, *family(self._root)]
        taken = resident_bytes(pids)
        # Forks share pages, with each other and with the server that they came from.
        return taken if taken <= self._limit else proportional_bytes(pids)

    def classify(self, exit_record: ExitRecord) -> ExitRecord:
        peak = max(self._peak, exit_record.peak_rss_bytes)
        known = replace(exit_record, memory_limit_bytes=self._limit, peak_rss_bytes=peak)
        is_exceeded = self._is_exceeded or (self._mark is not None and self._mark.exists())
        return _beyond_limit(known, "Runyard's memory watchdog") if is_exceeded else known


def confine(plan: LimitsPlan | None, worker: int, keeper: int | None = None) -> Unlimited:
    """Confines a worker that has not begun, and is a child of the caller.

    Args:
        plan: What is to be enforced.
        worker: Its PID.
        keeper: PID of the process that outlives it; by default the caller.

    Raises:
        OSError: It cannot be done by the means that are required.
    """
    if plan is None:
        return Unlimited()
    try:
        if group := _new_group(plan, worker, keeper or os.getpid()):
            grouped = Grouped(plan, group)
            grouped.end_at_once(worker)
            return grouped
    except OSError as error:
        if plan.required:
            raise
        complain("runyard shim", error, "limits are enforced by a watchdog")
    return _watch(plan, worker)


def resume(plan: LimitsPlan | None, worker: int | None, mark: Path) -> Unlimited:
    """Resume the enforcement for a worker whose shim is dead.

    Args:
        plan: Of the attempt.
        worker: Its PID, which may be over; None if there never was one.
        mark: Path of a file by which several watchdogs of the attempt share that it is exceeded.
    """
    if plan is None:
        return Unlimited()
    if group := _made_group(plan, worker):
        return Grouped(plan, group)
    return Unlimited() if worker is None else Watched(plan, worker, counts_root=True, mark=mark)


def _new_group(plan: LimitsPlan, worker: int, keeper: int) -> Group | None:
    if plan.backend == SYSTEMD:
        directories = [scope.enter(plan.unit, keeper, worker) / "worker"]
    else:
        directories = [Path(each) for each in plan.groups]
    if not directories:
        return None
    group = Group(directories)
    group.make(plan.memory, plan.cpu)
    try:
        group.take_in(worker)
    except OSError:
        group.remove()
        raise
    return group


def _made_group(plan: LimitsPlan, worker: int | None) -> Group | None:
    directories = [Path(each) for each in plan.groups]
    if plan.backend == SYSTEMD and worker is not None:
        directory = scope.directory_of(worker)
        directories = [directory] if directory and directory.parent.name == plan.unit else []
    group = Group(directories)
    return group if directories and group.is_there else None


def _watch(plan: LimitsPlan, worker: int) -> Watched:
    if plan.memory:
        most = plan.memory * DATA_FACTOR
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(worker, resource.RLIMIT_DATA, (most, most))
    return Watched(plan, os.getpid(), counts_root=False)


def _beyond_limit(exit_record: ExitRecord, by: str) -> ExitRecord:
    # A worker that ended well, or as requested, did so in spite of what became of one of its processes.
    if exit_record.cause not in ("exited", "signaled") or exit_record.code == 0:
        return exit_record
    limit, peak = in_mib(exit_record.memory_limit_bytes), in_mib(exit_record.peak_rss_bytes)
    message = f"killed by {by} at its memory limit of {limit}; its processes had reached {peak}"
    return replace(exit_record, cause="oom_killed", message=message)
