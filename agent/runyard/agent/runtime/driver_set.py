"""The agent's drivers, and the one that stands in for drivers it no longer has."""

from collections.abc import Mapping

from runyard.agent.core.model import AttemptKey, HeldAttempt
from runyard.agent.drivers.absent import AbsentDriver
from runyard.agent.drivers.base import ClusterDriver, Driver, DriverError, OnChange, WarmDriver
from runyard.agent.node.facts import WorkerUsage
from runyard.agent.supervisor.records import SpecRecord, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.common.defaults import DRIVER


class DriverSet:
    """Drivers by name.

    Args:
        drivers: The configured ones. Among them is the process driver, unless no attempt can need it.
        directories: The attempts on this disk.
        on_change: Called for every phase that an attempt of a missing driver enters.

    Raises:
        DriverError: Several drivers each stand for a cluster.
    """

    def __init__(
        self, drivers: Mapping[str, Driver], directories: RunDirectories, on_change: OnChange
    ) -> None:
        self.by_name = drivers
        self.cluster = _cluster_among(drivers)
        """Driver that stands for a whole cluster, or None."""
        self._directories = directories
        self._absent = AbsentDriver(directories, on_change, drivers)

    async def open(self) -> list[HeldAttempt]:
        """Open every driver and return the attempts that they find on disk.

        Raises:
            DriverError: A driver cannot work on this machine.
        """
        found: list[HeldAttempt] = []
        for driver in (*self.by_name.values(), self._absent):
            await driver.open()
            found += await driver.recover()
        return found

    async def close(self) -> None:
        """Stop watching the workers, which keep running."""
        for driver in self.by_name.values():
            await driver.close()

    def of(self, key: AttemptKey) -> Driver:
        """Return the driver of an attempt."""
        spec = self.spec_of(key)
        # The process driver explains attempts without a spec, or with one that cannot be read.
        return self.by_name.get(spec.driver, self._absent) if spec else self.by_name[DRIVER]

    def spec_of(self, key: AttemptKey) -> SpecRecord | None:
        """Return an attempt's record of its launch; None if there is none, or it cannot be read."""
        directory = self._directories.open(key)
        try:
            return directory.read_spec() if directory else None
        except UnreadableRecord:
            return None

    async def usages(self) -> dict[AttemptKey, WorkerUsage]:
        """Measure the resources that live workers use."""
        usages: dict[AttemptKey, WorkerUsage] = {}
        for driver in self.by_name.values():
            usages |= await driver.usage()
        return usages

    def warm(self) -> list[WarmDriver]:
        """Return the drivers that keep warm servers."""
        return [driver for driver in self.by_name.values() if isinstance(driver, WarmDriver)]

    def refresh_warm_servers(self, name: str) -> None:
        """Replace a warm server; an empty name means all that are not resting."""
        for driver in self.warm():
            driver.warm_servers.refresh(name or None)


def _cluster_among(drivers: Mapping[str, Driver]) -> ClusterDriver | None:
    clusters = [driver for driver in drivers.values() if isinstance(driver, ClusterDriver)]
    if len(clusters) > 1:
        names = ", ".join(driver.name for driver in clusters)
        raise DriverError(f"the drivers {names} each stand for a cluster; start one agent for each")
    return clusters[0] if clusters else None
