"""Deletion of secrets in run directories as soon as they are not needed."""

import asyncio

import structlog

from runyard.agent.core.model import Finished, HeldAttempt, Running, Stopping
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory, RunDirectoryError

log = structlog.get_logger("runyard.agent")


class SecretsOnDisk:
    """Deletes secrets of attempts, one at a time.

    Args:
        directories: The attempts on this disk.
    """

    def __init__(self, directories: RunDirectories) -> None:
        self._directories = directories
        self._one_at_a_time = asyncio.Lock()

    async def forget(self, held: HeldAttempt) -> None:
        """Delete secrets that only a start needs, if no start can follow. A failure is only logged."""
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
            # Retried when the attempt ends, and when its end is acknowledged.
            log.warning("secrets_still_on_disk", attempt=str(held.key), error=str(error))

    async def acknowledge(self, directory: RunDirectory) -> None:
        """Mark the attempt as acknowledged, and delete the fingerprints of its secrets.

        Raises:
            RunDirectoryError: The disk refuses.
        """
        async with self._one_at_a_time:
            await asyncio.to_thread(directory.acknowledge)
