"""Runtimes over drivers of a test's choice."""

from collections.abc import Mapping
from pathlib import Path

from runyard.agent.config.agent import AgentSettings
from runyard.agent.drivers.base import Driver
from runyard.agent.node.isolation_backends import WATCHDOG_ONLY
from runyard.agent.runtime.agent import Agent
from runyard.agent.runtime.build import MakeDrivers, wire_agent
from runyard.agent.runtime.driver_set import DriverSet
from runyard.agent.supervisor.rundir import RunDirectories


async def wired(
    settings: AgentSettings, make_drivers: MakeDrivers, directories: RunDirectories | None = None
) -> Agent:
    """Build an agent with these drivers, which enforces no limits."""
    directories = directories or RunDirectories(settings.state_directory)
    return await wire_agent(settings, directories, WATCHDOG_ONLY, make_drivers)


def drivers_over(state: Path, drivers: Mapping[str, Driver]) -> DriverSet:
    """Return a set of drivers that reports to nothing."""
    return DriverSet(drivers, RunDirectories(state), lambda key, phase: None)


def no_drivers(state: Path) -> DriverSet:
    """Return a set without drivers."""
    return drivers_over(state, {})
