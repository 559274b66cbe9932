"""The time at which a worker that was asked to stop is killed. Pure: clocks are arguments.

Every process that stops workers uses this module: the shim, the fork server in place of a dead shim, the
agent, and the watchdog of containers. Grace periods run on CLOCK_BOOTTIME, which cannot be set and which
counts while the machine sleeps. The wall clock serves only for requests without a boot time, such as those
of 0.1.0. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

from runyard.agent.supervisor.records import StopRequest


@dataclass(frozen=True)
class StopDeadline:
    """When to kill a worker that was asked to stop.

    Attributes:
        kill_at: Seconds of CLOCK_BOOTTIME.
    """

    kill_at: float

    @classmethod
    def from_delivery(cls, stop: StopRequest, boottime: float) -> StopDeadline:
        """The deadline for the process that delivers SIGTERM: the worker gets the whole grace period.

        Args:
            stop: The request.
            boottime: CLOCK_BOOTTIME now, in seconds.
        """
        return cls(boottime + max(0.0, stop.grace_seconds))

    @classmethod
    def from_request(cls, stop: StopRequest, boottime: float, wall: float) -> StopDeadline:
        """The deadline for a successor: SIGTERM may have been delivered when the stop was requested.

        The time since the request counts, and is never negative: a clock that was set back does not lengthen
        the grace period.

        Args:
            stop: The request.
            boottime: CLOCK_BOOTTIME now, in seconds.
            wall: Unix time now, in seconds.
        """
        requested = stop.requested_at_boottime
        is_of_this_boot = requested is not None and requested <= boottime
        waited = (
            boottime - requested if requested is not None and is_of_this_boot else wall - stop.requested_at
        )
        return cls(boottime + max(0.0, stop.grace_seconds - max(0.0, waited)))

    def or_earlier(self, other: StopDeadline | None) -> StopDeadline:
        """The earlier of two deadlines: a repeated request may shorten the grace period, never extend it."""
        return self if other is None or self.kill_at <= other.kill_at else other

    def seconds_left(self, boottime: float) -> float:
        """Seconds until the worker is killed; 0 when it is due."""
        return max(0.0, self.kill_at - boottime)

    def is_due(self, boottime: float) -> bool:
        """True if the grace period is over."""
        return boottime >= self.kill_at
