"""Facts and load of the machine, and resource usage of its workers."""

import os
import platform
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import psutil

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.procfs import CLOCK_TICKS_PER_SECOND, ProcessIdentity, ProcessStat
from runyard.agent.supervisor.rundir import Key

K = TypeVar("K", bound=Key)


@dataclass(frozen=True)
class NodeFacts:
    """Facts that do not change while the agent runs."""

    hostname: str
    agent_version: str
    python_version: str
    cpu_count: int
    memory_bytes: int


@dataclass(frozen=True)
class NodeLoad:
    """Load of the machine."""

    cpu_fraction: float
    """Share of all cores in use since the previous call, 0 to 1."""
    memory_available_bytes: int
    disk_available_bytes: int
    """On the disk of the agent's state directory."""
    load_1m: float


@dataclass(frozen=True)
class WorkerUsage:
    """Resource usage of a worker and its descendants."""

    cpu_cores: float
    """CPU time per wall time since the previous sample; 1.0 is one core."""
    rss_bytes: int
    peak_rss_bytes: int
    """Largest sum in any sample, or the kernel's peak of the worker if that is larger."""
    last_output_at: float | None
    """Unix time in seconds of the last write to stdout or stderr; None if there was none."""


@dataclass(frozen=True)
class UsageTarget:
    """Live worker to measure."""

    worker: ProcessIdentity
    shim: ProcessIdentity
    logs: tuple[Path, ...]


def node_facts() -> NodeFacts:
    """Return the facts of this machine."""
    return NodeFacts(
        hostname=socket.gethostname(),
        agent_version=metadata.version("runyard"),
        python_version=platform.python_version(),
        cpu_count=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )


def node_load(state: Path) -> NodeLoad:
    """Return the load of this machine. The first call returns a CPU share of 0.

    Args:
        state: The agent's state directory, whose disk is measured.
    """
    disk = os.statvfs(state)
    return NodeLoad(
        cpu_fraction=psutil.cpu_percent(interval=None) / 100,
        memory_available_bytes=psutil.virtual_memory().available,
        disk_available_bytes=disk.f_bavail * disk.f_frsize,
        load_1m=os.getloadavg()[0],
    )


@dataclass(frozen=True)
class _Sample:
    """Sample of one worker's process tree, for comparison with the next."""

    taken_at: float
    cpu_ticks: Mapping[ProcessIdentity, int]
    peak_rss_bytes: int


class UsageSampler:
    """Measures all workers in one walk over /proc. Blocks: call it in a thread."""

    def __init__(self) -> None:
        self._samples: dict[Key, _Sample] = {}

    def sample(self, targets: Mapping[K, UsageTarget]) -> dict[K, WorkerUsage]:
        """Measure the workers, and forget those that are not targets.

        Returns:
            The usage of the live ones.
        """
        processes = procfs.all_processes()
        self._samples = {key: sample for key, sample in self._samples.items() if key in targets}
        usages = {}
        for key, target in targets.items():
            tree = _tree(target, processes)
            if tree:
                usages[key] = self._measure(key, target, tree)
        return usages

    def _measure(self, key: Key, target: UsageTarget, tree: list[ProcessStat]) -> WorkerUsage:
        now = time.monotonic()
        rss_bytes = sum(stat.rss_bytes for stat in tree)
        ticks = {stat.identity: stat.cpu_ticks for stat in tree}
        before = self._samples.get(key)
        peak = max(
            rss_bytes, procfs.peak_rss_bytes(target.worker.pid), before.peak_rss_bytes if before else 0
        )
        self._samples[key] = _Sample(now, ticks, peak)
        return WorkerUsage(_cores(before, now, ticks), rss_bytes, peak, _last_output_at(target.logs))


def _tree(target: UsageTarget, processes: Mapping[int, ProcessStat]) -> list[ProcessStat]:
    worker = processes.get(target.worker.pid)
    if worker is None or worker.identity != target.worker:
        return []
    shim = processes.get(target.shim.pid)
    if shim is not None and shim.identity == target.shim:
        return procfs.descendants(target.shim.pid, processes)
    return [worker, *procfs.descendants(target.worker.pid, processes)]


def _cores(before: _Sample | None, now: float, ticks: Mapping[ProcessIdentity, int]) -> float:
    if before is None or now <= before.taken_at:
        return 0.0
    spent = sum(count - before.cpu_ticks.get(process, 0) for process, count in ticks.items())
    # The kernel counts in ticks of 10 ms, so samples that are close together overestimate.
    return min(spent / CLOCK_TICKS_PER_SECOND / (now - before.taken_at), float(os.cpu_count() or 1))


def _last_output_at(logs: Iterable[Path]) -> float | None:
    times = []
    for path in logs:
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_size > 0:  # the time of an empty file is that of its creation
            times.append(status.st_mtime)
    return max(times, default=None)
