"""Stands in for drivers that this agent had once, and has no more: their attempts are still on its disk."""

import asyncio
from collections.abc import Container

import structlog

from runyard.agent.core.model import Accepted, AttemptKey, Finished, HeldAttempt
from runyard.agent.drivers.base import OnChange
from runyard.agent.drivers.outcomes import held_attempt, outcome_of
from runyard.agent.drivers.run_directory_driver import find_directory, new_stop_request
from runyard.agent.node.facts import WorkerUsage
from runyard.agent.supervisor.exit_records import never_started, stopped_before_start
from runyard.agent.supervisor.records import Cause, ExitRecord, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

log = structlog.get_logger("runyard.agent.drivers")


class AbsentDriver:
    """Holds the attempts of drivers that are no longer configured, so that they do not count as gone.

    A worker that was started may live: it is left as it is until its driver is back. One that never was does
    not start here any more, and ends when it is asked for.

    Args:
        directories: The attempts on this disk.
        on_change: Called for every phase that an attempt enters.
        present: Names of the drivers that the agent has.
    """

    name = "absent"

    def __init__(self, directories: RunDirectories, on_change: OnChange, present: Container[str]) -> None:
        self._directories = directories
        self._on_change = on_change
        self._present = present

    async def open(self) -> None:
        """Do nothing. See `Driver.open`."""

    async def recover(self) -> list[HeldAttempt]:
        """List what is on disk. See `Driver.recover`."""
        found = await asyncio.to_thread(self._found)
        for held in found:
            if not isinstance(held.phase, Accepted | Finished):
                log.error("driver_is_absent", attempt=str(held.key), remedy="configure its driver again")
        return found

    async def start(self, key: AttemptKey) -> None:
        """End the attempt, which no driver can start. See `Driver.start`."""
        directory = find_directory(self._directories, key)
        if not directory.is_starting:
            message = f"this agent has no driver {_driver_of(directory)!r} any more"
            self._end(key, directory, never_started("start_failed", message))

    async def stop(
        self, key: AttemptKey, grace_seconds: float, reason: str, cause: Cause = "stopped"
    ) -> None:
        """Ends what never started; leaves the request for the driver otherwise. See `Driver.stop`."""
        directory = find_directory(self._directories, key)
        stop = new_stop_request(grace_seconds, reason, cause)
        await asyncio.to_thread(directory.request_stop, stop)
        if directory.is_starting:
            log.error("cannot_stop", attempt=str(key), driver=_driver_of(directory))
        else:
            self._end(key, directory, stopped_before_start(stop))

    async def usage(self) -> dict[AttemptKey, WorkerUsage]:
        """Nothing. See `Driver.usage`."""
        return {}

    async def close(self) -> None:
        """Do nothing. See `Driver.close`."""

    def _found(self) -> list[HeldAttempt]:
        return [
            held_attempt(each)
            for each in self._directories.scan()
            if each.acknowledged_at is None and self._is_orphaned(each)
        ]

    def _is_orphaned(self, directory: RunDirectory) -> bool:
        driver = _driver_of(directory)
        return driver is not None and driver not in self._present

    def _end(self, key: AttemptKey, directory: RunDirectory, exit_record: ExitRecord) -> None:
        if directory.write_exit(exit_record):
            self._on_change(key, Finished(outcome_of(exit_record, directory)))


def _driver_of(directory: RunDirectory) -> str | None:
    """Name of the driver of an attempt; None if it has no spec, or none that can be read."""
    try:
        spec = directory.read_spec()
    except UnreadableRecord:
        return None
    return spec.driver if spec else None
