"""The time of the last contact with the coordinator, in a file that a shim can read while the agent is dead.

`<state>/contact` holds the boot ID, and its modification time is not a wall-clock time: it is the reading of
CLOCK_BOOTTIME at which the agent sent the last heartbeat that was acknowledged. A time stamp can be set on a
disk that is full, and is never seen half written; the clock goes on while the machine sleeps, and nobody can
set it. Standard library only.
"""

import os
import time
from pathlib import Path

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import SpecRecord, StopRequest
from runyard.agent.supervisor.rundir import RunDirectory

LEASE_EXPIRED = "lease_expired"
"""`StopRequest.why` of a worker whose node lost the coordinator for too long."""

LONGEST_LOOK_AWAY = 5.0
"""Seconds at most between two looks at a fence.

Waits do not count the time for which a machine sleeps, so one that wakes up may be late by this much; the
coordinator allows for 10 s.
"""


class ContactFile:
    """The last contact of one state directory.

    Args:
        state: The agent's state directory.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "contact"

    def write(self, at: float) -> None:
        """Note a contact.

        Args:
            at: When the message that was answered had been sent, in seconds of CLOCK_BOOTTIME.

        Raises:
            OSError: The disk refuses even that.
        """
        stamp = (int(at * 1e9), int(at * 1e9))
        if self._is_of_this_boot():
            os.utime(self._path, ns=stamp)
            return
        aside = self._path.with_name(".contact")
        aside.write_text(procfs.boot_id())
        os.utime(aside, ns=stamp)
        os.rename(aside, self._path)

    def read(self) -> float | None:
        """When the last contact was, in seconds of CLOCK_BOOTTIME; None if there was none in this boot."""
        try:
            at = self._path.stat().st_mtime
        except FileNotFoundError:
            return None
        return at if self._is_of_this_boot() and at <= procfs.boottime() else None

    def _is_of_this_boot(self) -> bool:
        try:
            return self._path.read_text() == procfs.boot_id()
        except FileNotFoundError:
            return False


class Fence:
    """Deadline of a worker that is to be stopped because its node lost the coordinator.

    Args:
        contact: Where contacts are noted.
        stop_after: Seconds without contact.
        grace: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, contact: ContactFile, stop_after: float, grace: float) -> None:
        self._contact = contact
        self._stop_after = stop_after
        self._grace = grace
        self._raised_at = procfs.boottime()

    @classmethod
    def of(cls, directory: RunDirectory, spec: SpecRecord | None) -> "Fence | None":
        """The fence of an attempt; None for one that is kept whatever happens to the connection."""
        if spec is None or spec.stop_after is None:
            return None
        return cls(ContactFile(directory.state), spec.stop_after, spec.grace_seconds)

    def seconds_left(self) -> float:
        """Seconds until the worker has to be stopped unless there is a contact before; 0 once it has to."""
        # A contact that is older than the fence counts as it is: the coordinator counts from there too.
        last = self._contact.read()
        since = self._raised_at if last is None else last
        return max(0.0, since + self._stop_after - procfs.boottime())

    def look_in(self) -> float:
        """Seconds until the next look at the fence."""
        return min(self.seconds_left(), LONGEST_LOOK_AWAY)

    def stop(self) -> StopRequest:
        """The request to end the worker."""
        reason = f"no contact with the coordinator for {self._stop_after:g} s (stop_after)"
        return StopRequest(
            grace_seconds=self._grace,
            reason=reason,
            requested_at=time.time(),
            why=LEASE_EXPIRED,
            requested_at_boottime=procfs.boottime(),
        )
