"""Measurement of memory, disk and processes that are left on the node."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import structlog

from runyard.agent.config.pressure import PressureSettings
from runyard.agent.core.pressure import RELIEF, Pressure, Pressures, Room, Scarce, Thresholds
from runyard.agent.node.cgroups import own_rooms
from runyard.common.backoff import jittered
from runyard.common.quantities import show_quantity

MEASURE_EVERY = 5.0
"""Seconds between two measurements; about the heartbeat interval."""

log = structlog.get_logger("runyard.agent")


def rooms_left(state: Path) -> dict[Scarce, Room]:
    """Measure what is left on the machine and within the control groups of this process.

    Args:
        state: The agent's state directory, whose disk is measured.
    """
    disk = os.statvfs(state)
    memory = psutil.virtual_memory()
    in_groups = own_rooms()
    return {
        Scarce.MEMORY: _tightest(Room(memory.available, memory.total), in_groups.memory),
        Scarce.DISK: Room(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize),
        Scarce.PIDS: _tightest(_pids_left(), in_groups.pids),
    }


def in_words(pressure: Pressure) -> str:
    """Return the shortage as a sentence: the amount left, and the amount at which runs are accepted again."""
    name = "memory" if pressure.scarce is not Scarce.PIDS else "pids"
    left, total = show_quantity(name, pressure.room.left), show_quantity(name, pressure.room.total)
    enough = show_quantity(name, int(pressure.bound * RELIEF))
    what = {Scarce.MEMORY: "memory", Scarce.DISK: "the state directory's disk", Scarce.PIDS: "processes"}
    return f"{left} of {total} of {what[pressure.scarce]} left; new runs are accepted with {enough}"


class PressureMonitor:
    """Current shortages of the node.

    Args:
        settings: Thresholds.
        state: The agent's state directory.
        measure: Measures what is left.
    """

    def __init__(
        self,
        settings: PressureSettings,
        state: Path,
        measure: Callable[[Path], Mapping[Scarce, Room]] = rooms_left,
    ) -> None:
        least = {Scarce.MEMORY: settings.memory, Scarce.DISK: settings.disk, Scarce.PIDS: settings.pids}
        known = {scarce: amount for scarce, amount in least.items() if amount is not None}
        self._pressures = Pressures(Thresholds(known, settings.recovery_period))
        self._state = state
        self._measure = measure

    def all(self) -> list[Pressure]:
        """Return the shortages, at most one of each kind."""
        return self._pressures.all()

    async def check(self) -> None:
        """Measure once."""
        try:
            rooms = await asyncio.to_thread(self._measure, self._state)
        except OSError as error:
            log.warning("room_not_known", error=str(error))
            return
        before = {each.scarce for each in self.all()}
        self._pressures.on_measured(time.monotonic(), rooms)
        for pressure in self.all():
            if pressure.scarce not in before:
                log.warning("short", of=pressure.scarce.value, why=in_words(pressure))
        for scarce in before - {each.scarce for each in self.all()}:
            log.info("no_longer_short", of=scarce.value)

    async def run(self) -> None:
        """Measure at intervals. Never returns."""
        while True:
            await self.check()
            await asyncio.sleep(jittered(MEASURE_EVERY))


def _tightest(of_machine: Room, of_groups: Room | None) -> Room:
    return of_machine if of_groups is None else min(of_machine, of_groups, key=lambda room: room.left)


def _pids_left() -> Room:
    """Count threads too, since each has its own ID."""
    # The fourth field is `runnable/existing`, see proc_loadavg(5).
    used = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    limits = ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max")
    total = min(int(Path(limit).read_text()) for limit in limits)
    return Room(max(0, total - used), total)
