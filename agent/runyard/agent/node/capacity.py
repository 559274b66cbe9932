"""What the node offers to runs: what its machine has, or the cluster behind a driver, and the settings.

The settings win over what is found. Of memory that is found, and not set, a twentieth is kept back for the
system, 1 GiB at most; of anything else nothing, unless the settings say so.
"""

import asyncio
import os
import platform
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import psutil
import structlog

from runyard.agent.config.agent import AgentSettings
from runyard.agent.drivers.base import (
    Capacity,
    ClusterDriver,
    DependentDriver,
    Driver,
    DriverError,
)
from runyard.agent.node.cgroups import own_limits
from runyard.agent.node.gpus import allottable, find_gpus
from runyard.common.quantities import show_quantity

LOOK_EVERY = 30.0
"""Seconds between two looks at what there is."""

GLANCE_EVERY = 1.0
"""Seconds between two looks at whether a driver has come or gone."""

ANSWER_WITHIN = 20.0
"""Seconds for the driver of a cluster to tell its capacity."""

SYSTEM_SHARE = 20
"""The found memory divided by this is kept back for the system..."""

SYSTEM_MOST = 1 << 30
"""...or so many bytes, if that is less: what an idle Linux with its services and this agent needs."""

log = structlog.get_logger("runyard.agent")


@dataclass(frozen=True)
class Offer:
    """What runs may have. Amounts are in the units of `runyard.v1.Requirements`."""

    labels: Mapping[str, str] = field(default_factory=dict)
    drivers: Sequence[str] = ()
    taints: Sequence[str] = ()
    resources: Mapping[str, int] = field(default_factory=dict)
    """What all runs together may take."""
    reserved: Mapping[str, int] = field(default_factory=dict)
    """Kept back for the system, and taken off `resources` already."""
    largest_run: Mapping[str, int] = field(default_factory=dict)
    """The most that one run may take of what is named here."""
    gateway: bool = False
    """The agent stands for a whole cluster."""


@dataclass(frozen=True)
class Machine:
    """What this machine has for the agent and its workers."""

    cpu: int
    """Thousandths of a core."""
    memory: int
    """Bytes."""
    gpus: Sequence[str] = ()
    """The model of each."""


def look_at_machine(gpus: Sequence[str] = ()) -> Machine:
    """What the kernel gives this process: its cores and memory, within the limits of its control groups.

    Args:
        gpus: The model of each GPU; they are not looked for.
    """
    limits = own_limits()
    cores = len(os.sched_getaffinity(0)) * 1000
    memory = psutil.virtual_memory().total
    return Machine(
        cpu=min(cores, limits.cpu if limits.cpu is not None else cores),
        memory=min(memory, limits.memory if limits.memory is not None else memory),
        gpus=gpus,
    )


def machine_offer(settings: AgentSettings, machine: Machine, drivers: Sequence[str]) -> Offer:
    """What a node offers that is one machine.

    Args:
        settings: What they name wins over what was found. Without `slots` there is one for each core.
        machine: What was found.
        drivers: Their names.
    """
    found = {"cpu": machine.cpu, "memory": machine.memory, "gpu": len(machine.gpus)}
    has = {**found, **settings.resources}
    has["slots"] = max(1, has["cpu"] // 1000) if settings.slots is None else settings.slots
    kept = {"memory": min(machine.memory // SYSTEM_SHARE, SYSTEM_MOST)}
    if "memory" in settings.resources:
        kept = {}
    reserved = _within({**kept, **settings.reserved}, has)
    return Offer(
        labels={**_machine_labels(machine), **settings.labels},
        drivers=drivers,
        taints=settings.taints,
        resources=_less(has, reserved),
        reserved=reserved,
    )


def cluster_offer(settings: AgentSettings, capacity: Capacity, driver: str) -> Offer:
    """What a gateway offers.

    Args:
        settings: What they name wins over what the driver tells.
        capacity: What the driver tells of its cluster.
        driver: Its name. A gateway's own machine runs nothing, so no other is offered.
    """
    has = {**capacity.resources, **settings.resources}
    if settings.slots is not None:
        has["slots"] = settings.slots
    reserved = _within(settings.reserved, has)
    return Offer(
        labels=settings.labels,
        drivers=(driver,),
        taints=settings.taints,
        resources=_less(has, reserved),
        reserved=reserved,
        largest_run=capacity.largest_run,
        gateway=True,
    )


class Offering:
    """The offer as it is at the moment.

    Args:
        settings: The agent's settings.
        drivers: By name. Filled by the caller before `open`.
        labels: What was found of this machine otherwise.

    Attributes:
        devices: The GPUs that are given to runs one by one. Known after `open`.
    """

    def __init__(
        self, settings: AgentSettings, drivers: Mapping[str, Driver], labels: Mapping[str, str] | None = None
    ) -> None:
        self._labels = labels or {}
        self.current = Offer()
        self._settings = settings
        self._drivers = drivers
        self.devices: tuple[str, ...] = ()
        self._models: Sequence[str] = ()
        self._cluster: ClusterDriver | None = None
        self._capacity = Capacity({})

    async def open(self) -> None:
        """Looks for the first time; the drivers are open by then.

        Raises:
            DriverError: Several drivers each stand for a cluster of their own.
        """
        clusters = [driver for driver in self._drivers.values() if isinstance(driver, ClusterDriver)]
        if len(clusters) > 1:
            names = ", ".join(driver.name for driver in clusters)
            raise DriverError(f"the drivers {names} each stand for a cluster; start one agent for each")
        if clusters:
            self._cluster = clusters[0]
        elif self._settings.resources.get("gpu") != 0:
            await self._find_gpus()
        await self.look()
        log.info("offering", **_shown(self.current))

    async def keep(self) -> None:
        """Looks again for ever: limits are changed, and clusters grow and shrink."""
        while True:
            await self._until_next_look()
            before = self.current
            await self.look()
            if self.current != before:
                log.info("offer_changed", **_shown(self.current))

    async def look(self) -> None:
        """Brings `current` up to date."""
        if self._cluster is None:
            machine = await asyncio.to_thread(look_at_machine, self._models)
            ready = [name for name, driver in self._drivers.items() if not _trouble_of(driver)]
            offer = machine_offer(self._settings, machine, ready)
            self.current = replace(
                offer, labels={**self._labels, **_driver_labels(self._drivers), **offer.labels}
            )
        else:
            self._capacity = await self._capacity_of(self._cluster)
            self.current = cluster_offer(self._settings, self._capacity, self._cluster.name)

    async def _until_next_look(self) -> None:
        """Waits for its time, or until a driver comes or goes."""
        labels = _driver_labels(self._drivers)
        due = time.monotonic() + LOOK_EVERY * random.uniform(0.9, 1.1)
        while (left := due - time.monotonic()) > 0:
            await asyncio.sleep(min(left, GLANCE_EVERY))
            if _driver_labels(self._drivers) != labels:
                return

    async def _find_gpus(self) -> None:
        found = await asyncio.to_thread(find_gpus)
        named = self._settings.gpus
        models = {gpu.uuid: gpu.model for gpu in found}
        self._models = [models.get(uuid, "") for uuid in named] if named else [gpu.model for gpu in found]
        self.devices = allottable(named, self._settings.resources.get("gpu"), found)

    async def _capacity_of(self, cluster: ClusterDriver) -> Capacity:
        """What the cluster tells, or told last; nothing if it never did."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await cluster.capacity()
        except (DriverError, TimeoutError) as error:
            why = str(error) or f"no answer within {ANSWER_WITHIN:g} s"
            log.warning("capacity_not_known", driver=cluster.name, error=why)
            return self._capacity


def _trouble_of(driver: Driver) -> str:
    return driver.trouble if isinstance(driver, DependentDriver) else ""


def _driver_labels(drivers: Mapping[str, Driver]) -> dict[str, str]:
    """The condition of every driver that has one: so that people see why it is not offered."""
    return {
        f"runyard/{name}": "unavailable" if driver.trouble else "ready"
        for name, driver in drivers.items()
        if isinstance(driver, DependentDriver)
    }


def _machine_labels(machine: Machine) -> dict[str, str]:
    labels = {"runyard/os": platform.system().lower(), "runyard/arch": platform.machine()}
    models = {"-".join(model.split()) for model in machine.gpus}
    if len(models) == 1 and "" not in models:  # of several it cannot be said which one a run gets
        labels["gpu.model"] = models.pop()
    return labels


def _within(amounts: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, int]:
    return _above_zero({name: min(amount, limits.get(name, 0)) for name, amount in amounts.items()})


def _less(has: Mapping[str, int], reserved: Mapping[str, int]) -> dict[str, int]:
    return _above_zero({name: amount - reserved.get(name, 0) for name, amount in has.items()})


def _above_zero(amounts: Mapping[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in amounts.items() if amount > 0}


def _shown(offer: Offer) -> dict[str, str]:
    return {name: show_quantity(name, amount) for name, amount in offer.resources.items()}
