"""The agent as a service: runs until it is stopped, and leaves its workers unharmed."""

import asyncio
import signal
import uuid

import structlog

from runyard.agent.config.agent import AgentSettings
from runyard.agent.node.installation import Installation
from runyard.agent.node.shutdown import machine_is_stopping
from runyard.agent.runtime.agent import Agent
from runyard.agent.runtime.build import build_agent
from runyard.agent.runtime.housekeeping import prune_forever
from runyard.agent.runtime.shutdown import stop_all
from runyard.agent.security.enrolment import ensure_certificate
from runyard.agent.security.renewal import keep_certificate
from runyard.agent.session.identity import SessionIdentity
from runyard.agent.session.session import stay_in_session
from runyard.agent.session.task_group import until_first_ends
from runyard.agent.supervisor.procfs import boot_id

log = structlog.get_logger("runyard.agent")


async def serve(settings: AgentSettings) -> None:
    """Run until SIGTERM or SIGINT. Workers are stopped only if the whole machine shuts down.

    Raises:
        StateError: The state directory cannot be used.
        RunDirectoryError: The run directories in it cannot be used.
        DriverError: A driver cannot work on this machine.
        JoinFailed: This node has no certificate and cannot get one.
        Refused: The coordinator refuses this agent.
        UnusableKey: A signing key cannot be read.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    installation = Installation(settings.state_directory)
    try:
        await until_first_ends(ensure_certificate(settings), _until(stopped))
        if not stopped.is_set():
            identity = SessionIdentity(installation, uuid.uuid4().hex, boot_id())
            await _run(await build_agent(settings, installation.id), identity, stopped)
    finally:
        installation.release()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _run(agent: Agent, identity: SessionIdentity, stopped: asyncio.Event) -> None:
    settings = agent.settings
    try:
        await agent.open()
        log.info("working", node=settings.node_id, cluster=settings.cluster)
        leaving = asyncio.Event()
        departure = asyncio.create_task(_leave(agent, stopped, leaving))
        try:
            await until_first_ends(
                agent.runtime.run(),
                prune_forever(agent.directories, settings),
                agent.pressures.run(),
                agent.resources.run(),
                keep_certificate(settings),
                stay_in_session(agent, identity, leaving),
            )
        finally:
            departure.cancel()
    finally:
        await agent.close()
        log.info("stopped")


async def _leave(agent: Agent, stopped: asyncio.Event, leaving: asyncio.Event) -> None:
    """Set `leaving` once the agent is stopped; if the machine shuts down, stop its runs first."""
    await stopped.wait()
    settings = agent.settings
    try:
        if await machine_is_stopping(settings.machine_state_command):
            reason = "the machine is shutting down"
            await stop_all(agent.runtime, agent.drivers, settings.shutdown_budget, reason)
    finally:
        leaving.set()
