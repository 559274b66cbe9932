"""Puts the agent together, works until it is told to leave, and lets go of its workers unharmed."""

import asyncio
import signal
import uuid

import structlog

from runyard.agent.admission.confinement import make_scratch_home
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.docker import DockerSettings
from runyard.agent.drivers.base import Driver, DriverError
from runyard.agent.drivers.process.driver import ProcessDriver
from runyard.agent.node.capacity import Offering
from runyard.agent.node.installation import Installation
from runyard.agent.node.isolation_backends import LABEL, Rung, find_rung
from runyard.agent.node.shutdown import machine_is_stopping
from runyard.agent.runtime import Runtime
from runyard.agent.security.enrolment import ensure_certificate
from runyard.agent.security.renewal import keep_certificate
from runyard.agent.session.session import Identity, stay_in_session
from runyard.agent.session.task_group import until_first_ends
from runyard.agent.supervisor.procfs import boot_id
from runyard.agent.supervisor.rundir import RunDirectories

log = structlog.get_logger("runyard.agent")


async def serve(settings: AgentSettings) -> None:
    """Works until SIGTERM or SIGINT. Neither harms a worker, unless the whole machine shuts down.

    Raises:
        StateError: The state directory cannot be used.
        RunDirectoryError: The run directories in it cannot be used.
        DriverError: A driver cannot work on this machine.
        JoinFailed: This node has no certificate, and cannot get one as things are.
        Refused: The coordinator does not want this agent.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    installation = Installation(settings.state_directory)
    try:
        await until_first_ends(ensure_certificate(settings), _until(asked))
        identity = Identity(installation, uuid.uuid4().hex, boot_id())
        if not asked.is_set():
            await _work(settings, identity, asked)
    finally:
        installation.release()


async def _until(asked: asyncio.Event) -> None:
    await asked.wait()


async def _work(settings: AgentSettings, identity: Identity, asked: asyncio.Event) -> None:
    drivers: dict[str, Driver] = {}
    directories = RunDirectories(settings.state_directory)
    rung = await _isolation(settings, directories)
    runtime = Runtime(settings, directories, drivers, rung)
    drivers["process"] = ProcessDriver(
        runtime.directories, runtime.on_change, settings.warm, settings.max_concurrent_starts
    )
    if settings.docker is not None:
        drivers["docker"] = _docker_driver(settings.docker, runtime, identity.installation.id)
    offering = Offering(settings, drivers, {LABEL: rung.name})
    try:
        await runtime.open()
        await offering.open()
        runtime.gpus = offering.devices
        log.info("working", node=settings.node_id, cluster=settings.cluster)
        leaving = asyncio.Event()
        departure = asyncio.create_task(_depart(settings, runtime, asked, leaving))
        try:
            await until_first_ends(
                runtime.run(),
                runtime.tidy(),
                runtime.pressures.keep(),
                offering.keep(),
                keep_certificate(settings),
                stay_in_session(settings, identity, runtime, offering, leaving),
            )
        finally:
            departure.cancel()
    finally:
        await runtime.close()
        rung.leave()
        log.info("stopped")


def _docker_driver(settings: DockerSettings, runtime: Runtime, agent: str) -> Driver:
    try:
        from runyard.agent.drivers.docker.driver import DockerDriver
    except ModuleNotFoundError as error:
        if error.name != "docker":
            raise
        raise DriverError(
            "docker: the settings need the docker package: pip install 'runyard[docker]'"
        ) from error
    return DockerDriver(settings, runtime.directories, runtime.on_change, agent)


async def _isolation(settings: AgentSettings, directories: RunDirectories) -> Rung:
    try:
        await asyncio.to_thread(make_scratch_home, settings.isolation.scratch_directory)
    except OSError as error:
        raise DriverError(f"isolation.scratch_directory: {error}; name one that can be made") from error
    rung, reasons = await asyncio.to_thread(find_rung, settings.isolation, directories.state)
    log.info("isolation", by=rung.name, **{f"no_{name}": reason for name, reason in reasons.items()})
    return rung


async def _depart(
    settings: AgentSettings, runtime: Runtime, asked: asyncio.Event, leaving: asyncio.Event
) -> None:
    """Has the agent leave when it is asked to; before that it stops its runs if the machine shuts down."""
    await asked.wait()
    try:
        if await machine_is_stopping(settings.machine_state_command):
            await runtime.stop_all(settings.shutdown_budget, "the machine is shutting down")
    finally:
        leaving.set()
