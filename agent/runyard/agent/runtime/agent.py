"""The parts of a running agent."""

from dataclasses import dataclass

from runyard.agent.config.agent import AgentSettings
from runyard.agent.node.isolation_backends import IsolationBackend
from runyard.agent.node.pressure import PressureMonitor
from runyard.agent.runtime.driver_set import DriverSet
from runyard.agent.runtime.events import EventQueue
from runyard.agent.runtime.housekeeping import remove_leftovers
from runyard.agent.runtime.resource_monitor import ResourceMonitor
from runyard.agent.runtime.runtime import Runtime
from runyard.agent.supervisor.rundir import RunDirectories


@dataclass(frozen=True)
class Agent:
    """Parts of an agent; `build.build_agent` wires them."""

    settings: AgentSettings
    directories: RunDirectories
    events: EventQueue
    drivers: DriverSet
    isolation: IsolationBackend
    pressures: PressureMonitor
    resources: ResourceMonitor
    runtime: Runtime

    async def open(self) -> None:
        """Adopt what is on disk and measure the node. Call it before the first session.

        Raises:
            DriverError: A driver cannot work on this machine.
        """
        await self.runtime.open()
        await remove_leftovers(self.directories, self.settings, self.isolation)
        await self.pressures.check()
        await self.resources.open()

    async def close(self) -> None:
        """Release everything. The workers keep running."""
        await self.runtime.close()
        self.isolation.leave()
