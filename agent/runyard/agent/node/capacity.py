"""Resources that the node offers to runs: those of its machine, or of the cluster behind a driver.

Settings override what is detected. A twentieth of the detected memory is reserved for the system, 1 GiB at
most, unless the settings give an amount.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from runyard.agent.config.agent import AgentSettings
from runyard.agent.node.cgroups import own_limits

SYSTEM_SHARE = 20
"""Divisor of the detected memory that gives the amount reserved for the system."""

SYSTEM_MOST = 1 << 30
"""Largest amount reserved for the system by default, in bytes: enough for an idle Linux and this agent."""


@dataclass(frozen=True)
class NodeResources:
    """Resources for runs: `runyard.v1.Offer`. Amounts are in the units of `runyard.v1.Requirements`."""

    labels: Mapping[str, str] = field(default_factory=dict)
    drivers: Sequence[str] = ()
    taints: Sequence[str] = ()
    resources: Mapping[str, int] = field(default_factory=dict)
    """Amounts for all runs together."""
    reserved: Mapping[str, int] = field(default_factory=dict)
    """Amounts reserved for the system; `resources` does not include them."""
    largest_run: Mapping[str, int] = field(default_factory=dict)
    """Largest amounts that one run may take, as far as there is a limit."""
    gateway: bool = False
    """True if the agent stands for a whole cluster."""


@dataclass(frozen=True)
class Capacity:
    """Capacity of the cluster behind a driver, in the units of `runyard.v1.Requirements`."""

    resources: Mapping[str, int]
    """Amounts for all runs together. Without `slots` the cluster takes no runs."""
    largest_run: Mapping[str, int] = field(default_factory=dict)
    """Largest amounts that one run may take, such as those of the largest machine. Others are unlimited."""


@dataclass(frozen=True)
class Machine:
    """Resources of this machine for the agent and its workers."""

    cpu: int
    """Thousandths of a core."""
    memory: int
    """Bytes."""
    gpus: Sequence[str] = ()
    """Model of each GPU."""


def detect_machine(gpus: Sequence[str] = ()) -> Machine:
    """Measure this process's cores and memory, within the limits of its control groups.

    Args:
        gpus: Model of each GPU; they are not detected here.
    """
    limits = own_limits()
    cores = len(os.sched_getaffinity(0)) * 1000
    memory = psutil.virtual_memory().total
    return Machine(
        cpu=min(cores, limits.cpu if limits.cpu is not None else cores),
        memory=min(memory, limits.memory if limits.memory is not None else memory),
        gpus=gpus,
    )


def machine_resources(settings: AgentSettings, machine: Machine, drivers: Sequence[str]) -> NodeResources:
    """Return the resources of a node that is one machine.

    Args:
        settings: Their amounts override the detected ones. Default for `slots`: one for each core.
        machine: Detected resources.
        drivers: Names of the drivers that can start workers.
    """
    found = {"cpu": machine.cpu, "memory": machine.memory, "gpu": len(machine.gpus)}
    has = {**found, **settings.resources}
    has["slots"] = max(1, has["cpu"] // 1000) if settings.slots is None else settings.slots
    kept = {"memory": min(machine.memory // SYSTEM_SHARE, SYSTEM_MOST)}
    if "memory" in settings.resources:
        kept = {}
    reserved = _within({**kept, **settings.reserved}, has)
    return NodeResources(
        labels={**_machine_labels(machine), **settings.labels},
        drivers=drivers,
        taints=settings.taints,
        resources=_less(has, reserved),
        reserved=reserved,
    )


def cluster_resources(settings: AgentSettings, capacity: Capacity, driver: str) -> NodeResources:
    """Return the resources of a node that stands for a cluster.

    Args:
        settings: Their amounts override those of the driver.
        capacity: Capacity of the cluster as the driver reports it.
        driver: Its name. The node's own machine runs no workers, so there is no other driver.
    """
    has = {**capacity.resources, **settings.resources}
    if settings.slots is not None:
        has["slots"] = settings.slots
    reserved = _within(settings.reserved, has)
    return NodeResources(
        labels=settings.labels,
        drivers=(driver,),
        taints=settings.taints,
        resources=_less(has, reserved),
        reserved=reserved,
        largest_run=capacity.largest_run,
        gateway=True,
    )


def _machine_labels(machine: Machine) -> dict[str, str]:
    labels = {"runyard/os": platform.system().lower(), "runyard/arch": platform.machine()}
    models = {"-".join(model.split()) for model in machine.gpus}
    if len(models) == 1 and "" not in models:  # of several, it is unknown which one a run gets
        labels["gpu.model"] = models.pop()
    return labels


def _within(amounts: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, int]:
    return _above_zero({name: min(amount, limits.get(name, 0)) for name, amount in amounts.items()})


def _less(has: Mapping[str, int], reserved: Mapping[str, int]) -> dict[str, int]:
    return _above_zero({name: amount - reserved.get(name, 0) for name, amount in has.items()})


def _above_zero(amounts: Mapping[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in amounts.items() if amount > 0}
