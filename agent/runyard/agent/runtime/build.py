"""Builds an agent. Each part gets the parts that it needs when it is made."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from runyard.agent.admission.admission import Admission
from runyard.agent.admission.confinement import make_scratch_home
from runyard.agent.admission.preflight import Preflight
from runyard.agent.admission.trust.authorizer import LaunchAuthorizer
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.docker import DockerSettings
from runyard.agent.drivers.base import Driver, DriverError, OnChange
from runyard.agent.drivers.process.driver import ProcessDriver
from runyard.agent.node.gpus import GpuInventory, gpu_inventory
from runyard.agent.node.isolation_backends import LABEL, IsolationBackend, find_isolation_backend
from runyard.agent.node.pressure import PressureMonitor
from runyard.agent.runtime.agent import Agent
from runyard.agent.runtime.driver_set import DriverSet
from runyard.agent.runtime.events import EventQueue
from runyard.agent.runtime.resource_monitor import ResourceMonitor
from runyard.agent.runtime.runtime import Runtime
from runyard.agent.supervisor.rundir import RunDirectories

log = structlog.get_logger("runyard.agent")

MakeDrivers = Callable[[RunDirectories, OnChange], Mapping[str, Driver]]
"""Makes the drivers of an agent, by name."""


async def build_agent(settings: AgentSettings, installation_id: str) -> Agent:
    """Build an agent with the drivers that its settings name. Nothing is opened yet.

    Args:
        settings: The agent's settings.
        installation_id: Distinguishes this agent's containers from those of others.

    Raises:
        RunDirectoryError: The run directories cannot be used.
        DriverError: A driver, or the scratch directory, cannot be used.
        UnusableKey: A signing key cannot be read.
    """
    directories = RunDirectories(settings.state_directory)
    isolation = await _isolation(settings, directories)

    def make_drivers(directories: RunDirectories, on_change: OnChange) -> Mapping[str, Driver]:
        drivers: dict[str, Driver] = {
            "process": ProcessDriver(directories, on_change, settings.warm, settings.max_concurrent_starts)
        }
        if settings.docker is not None:
            drivers["docker"] = _docker_driver(settings.docker, directories, on_change, installation_id)
        return drivers

    return await wire_agent(settings, directories, isolation, make_drivers)


async def wire_agent(
    settings: AgentSettings,
    directories: RunDirectories,
    isolation: IsolationBackend,
    make_drivers: MakeDrivers,
) -> Agent:
    """Build an agent from an isolation backend and drivers.

    Raises:
        DriverError: Several drivers each stand for a cluster.
        UnusableKey: A signing key cannot be read.
    """
    authorizer = LaunchAuthorizer(settings)
    authorizer.announce()
    events = EventQueue()
    drivers = DriverSet(make_drivers(directories, events.on_change), directories, events.on_change)
    gpus = await _gpus(settings, drivers)
    pressures = PressureMonitor(settings.pressure, directories.state)
    admission = Admission(
        settings, directories, drivers.by_name, authorizer, Preflight(pressures), isolation, gpus.devices
    )
    return Agent(
        settings=settings,
        directories=directories,
        events=events,
        drivers=drivers,
        isolation=isolation,
        pressures=pressures,
        resources=ResourceMonitor(settings, drivers, gpus, {LABEL: isolation.name}),
        runtime=Runtime(events, directories, drivers, admission),
    )


async def _gpus(settings: AgentSettings, drivers: DriverSet) -> GpuInventory:
    if drivers.cluster is not None:
        return GpuInventory()  # the cluster allots its own
    return await asyncio.to_thread(gpu_inventory, settings.gpus, settings.resources.get("gpu"))


def _docker_driver(
    settings: DockerSettings, directories: RunDirectories, on_change: OnChange, installation_id: str
) -> Driver:
    try:
        from runyard.agent.drivers.docker.driver import DockerDriver
    except ModuleNotFoundError as error:
        if error.name != "docker":
            raise
        raise DriverError(
            "docker: the settings need the docker package: pip install 'runyard[docker]'"
        ) from error
    return DockerDriver(settings, directories, on_change, installation_id)


async def _isolation(settings: AgentSettings, directories: RunDirectories) -> IsolationBackend:
    try:
        await asyncio.to_thread(make_scratch_home, settings.isolation.scratch_directory)
    except OSError as error:
        raise DriverError(
            f"isolation.scratch_directory: {error}; name a directory that can be made"
        ) from error
    backend, reasons = await asyncio.to_thread(find_isolation_backend, settings.isolation, directories.state)
    log.info("isolation", by=backend.name, **{f"no_{name}": reason for name, reason in reasons.items()})
    return backend
