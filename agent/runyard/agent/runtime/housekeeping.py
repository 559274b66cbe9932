"""Removes leftovers of attempts that have ended."""

import asyncio

import structlog

from runyard.agent.config.agent import AgentSettings
from runyard.agent.drivers.process.orphans import sweep, sweep_resources
from runyard.agent.node.isolation_backends import IsolationBackend
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.common.backoff import jittered

PRUNE_EVERY = 45.0
"""Seconds between two clean-ups of old run directories, with jitter of a third."""

log = structlog.get_logger("runyard.agent")


async def remove_leftovers(
    directories: RunDirectories, settings: AgentSettings, backend: IsolationBackend
) -> None:
    """Remove processes, control groups and scratch directories that no live attempt owns.

    Call it once, after the drivers have recovered their attempts.
    """
    for pid, directory in (await asyncio.to_thread(sweep, directories)).items():
        log.warning("orphan_killed", pid=pid, attempt=directory.mark)
    await asyncio.to_thread(sweep_resources, directories, backend, settings.isolation.scratch_directory)


async def prune_forever(directories: RunDirectories, settings: AgentSettings) -> None:
    """Delete old run directories at regular intervals. Never returns."""
    while True:
        try:
            await asyncio.to_thread(directories.prune, settings.keep_runs, settings.keep_logs)
        except OSError as error:
            log.warning("tidying_failed", error=str(error))
        await asyncio.sleep(jittered(PRUNE_EVERY, spread=1 / 3))
