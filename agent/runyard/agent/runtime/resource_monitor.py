"""The node's resources at the moment, checked at regular intervals."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from runyard.agent.config.agent import AgentSettings
from runyard.agent.drivers.base import ClusterDriver, DependentDriver, Driver, DriverError
from runyard.agent.node.capacity import (
    Capacity,
    NodeResources,
    cluster_resources,
    detect_machine,
    machine_resources,
)
from runyard.agent.node.gpus import GpuInventory
from runyard.agent.runtime.driver_set import DriverSet
from runyard.common.backoff import jittered
from runyard.common.quantities import show_quantity

CHECK_EVERY = 30.0
"""Seconds between two checks of the resources."""

CHECK_DRIVERS_EVERY = 1.0
"""Seconds between two checks for drivers that became ready or unavailable."""

ANSWER_WITHIN = 20.0
"""Seconds for the driver of a cluster to report its capacity."""

log = structlog.get_logger("runyard.agent")


class ResourceMonitor:
    """Current resources of this node.

    Args:
        settings: The agent's settings.
        drivers: The agent's drivers.
        gpus: GPUs of this machine.
        labels: Further labels that were detected on this machine.
    """

    def __init__(
        self,
        settings: AgentSettings,
        drivers: DriverSet,
        gpus: GpuInventory,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.current = NodeResources()
        self._settings = settings
        self._drivers = drivers
        self._gpus = gpus
        self._labels = labels or {}
        self._capacity = Capacity({})

    async def open(self) -> None:
        """Check the resources for the first time. Call it after the drivers are open."""
        await self.check()
        log.info("offering", **_shown(self.current))

    async def run(self) -> None:
        """Check again at intervals: limits change, and clusters grow and shrink. Never returns."""
        while True:
            await self._until_next_check()
            before = self.current
            await self.check()
            if self.current != before:
                log.info("offer_changed", **_shown(self.current))

    async def check(self) -> None:
        """Bring `current` up to date."""
        cluster = self._drivers.cluster
        if cluster is not None:
            self._capacity = await self._capacity_of(cluster)
            self.current = cluster_resources(self._settings, self._capacity, cluster.name)
            return
        machine = await asyncio.to_thread(detect_machine, self._gpus.models)
        drivers = self._drivers.by_name
        ready = [name for name, driver in drivers.items() if not _trouble_of(driver)]
        found = machine_resources(self._settings, machine, ready)
        labels = {**self._labels, **_driver_labels(drivers), **found.labels}
        self.current = replace(found, labels=labels)

    async def _until_next_check(self) -> None:
        """Wait until the next check is due, or a driver becomes ready or unavailable."""
        labels = _driver_labels(self._drivers.by_name)
        due = time.monotonic() + jittered(CHECK_EVERY)
        while (left := due - time.monotonic()) > 0:
            await asyncio.sleep(min(left, CHECK_DRIVERS_EVERY))
            if _driver_labels(self._drivers.by_name) != labels:
                return

    async def _capacity_of(self, cluster: ClusterDriver) -> Capacity:
        """Return the cluster's capacity, or the last known one; nothing if there was none."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await cluster.capacity()
        except (DriverError, TimeoutError) as error:
            reason = str(error) or f"no answer within {ANSWER_WITHIN:g} s"
            log.warning("capacity_not_known", driver=cluster.name, error=reason)
            return self._capacity


def _trouble_of(driver: Driver) -> str:
    return driver.trouble if isinstance(driver, DependentDriver) else ""


def _driver_labels(drivers: Mapping[str, Driver]) -> dict[str, str]:
    """Return the state of each driver that can be unavailable, as labels that people see."""
    return {
        f"runyard/{name}": "unavailable" if driver.trouble else "ready"
        for name, driver in drivers.items()
        if isinstance(driver, DependentDriver)
    }


def _shown(resources: NodeResources) -> dict[str, str]:
    return {name: show_quantity(name, amount) for name, amount in resources.resources.items()}
