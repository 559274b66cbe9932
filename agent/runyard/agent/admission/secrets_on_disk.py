"""Deletes the secrets of run directories as soon as nobody needs them."""

import asyncio

import structlog

from runyard.agent.core.model import Finished, HeldAttempt, Running, Stopping
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory, RunDirectoryError

log = structlog.get_logger("runyard.agent")


class SecretsOnDisk:
    """What is done with the secrets of attempts, one after the other.

    Args:
        directories: The attempts on this disk.
    """

    def __init__(self, directories: RunDirectories) -> None:
        self._directories = directories
        self._one_at_a_time = asyncio.Lock()

    async def forget(self, held: HeldAttempt) -> None:
        """Deletes what only a start needs, if there can be no start any more. A failure is only logged."""
        match held.phase:
            case Running() | Stopping(pid=int()) | Finished():
                directory = self._directories.open(held.key)
            case _:
                return
        try:
            if directory is not None:
                async with self._one_at_a_time:
                    await asyncio.to_thread(directory.forget_secrets)
        except (RunDirectoryError, OSError) as error:
            # Tried again when the attempt is over, and when its end is acknowledged.
            log.warning("secrets_still_on_disk", attempt=str(held.key), error=str(error))

    async def acknowledge(self, directory: RunDirectory) -> None:
        """Notes that the coordinator has the end, and deletes the last that could tell of a secret.

        Raises:
            RunDirectoryError: The disk refuses.
        """
        async with self._one_at_a_time:
            await asyncio.to_thread(directory.acknowledge)
