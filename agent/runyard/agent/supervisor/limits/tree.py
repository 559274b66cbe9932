"""Memory of a family of processes. Standard library only."""

from __future__ import annotations

import os

from runyard.agent.supervisor import procfs

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def family(root: int) -> list[int]:
    """PIDs of the children of a process, and of theirs, and so on; without the process itself."""
    found: list[int] = []
    wave = [root]
    try:
        while wave:
            wave = [child for pid in wave for child in _children(pid)]
            found += wave
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [each.identity.pid for each in procfs.descendants(root, procfs.all_processes())]
    return found


def resident_bytes(pids: list[int]) -> int:
    """The sum of resident sets, in which shared pages count for each process. Cheap."""
    return sum(_resident(pid) for pid in pids)


def proportional_bytes(pids: list[int]) -> int:
    """Proportional memory of the processes: shared pages are divided among their users."""
    return sum(_proportional(pid) for pid in pids)


def _children(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []
    children: list[int] = []
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children += map(int, file.read().split())
        except ProcessLookupError:
            continue
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{task}/stat"):
                raise
    return children


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024  # the kernel says kB and means KiB
    except OSError:
        pass
    return _resident(pid)
