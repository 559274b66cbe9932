"""Detection of shortages that keep a node from accepting runs, with hysteresis."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Scarce(enum.Enum):
    """Kind of a shortage."""

    MEMORY = "memory"
    DISK = "disk"
    PIDS = "pids"


@dataclass(frozen=True)
class Room:
    """Amount that is left: bytes, or processes."""

    left: int
    total: int


@dataclass(frozen=True)
class Bound:
    """Default threshold: a share of the total, or an amount if that is less."""

    divisor: int
    most: int

    def of(self, total: int) -> int:
        """Return the threshold for a total."""
        return min(total // self.divisor, self.most)


BOUNDS: Mapping[Scarce, Bound] = {
    Scarce.MEMORY: Bound(40, 512 << 20),
    Scarce.DISK: Bound(20, 1 << 30),
    Scarce.PIDS: Bound(20, 1_000),
}
"""Default thresholds. For memory, it is half of the amount that a node reserves for the system."""

RELIEF = 1.25
"""Multiple of the threshold at which there is enough again."""


@dataclass(frozen=True)
class Thresholds:
    """Beginning and end of pressure.

    Attributes:
        least: Thresholds in bytes or processes. 0 disables a check.
        recovery_period: Seconds for which enough must be left before the pressure ends.
    """

    least: Mapping[Scarce, int] = field(default_factory=dict)
    recovery_period: float = 30.0

    def bound(self, scarce: Scarce, total: int) -> int:
        """Return the threshold for a total."""
        set_by_owner = self.least.get(scarce)
        return BOUNDS[scarce].of(total) if set_by_owner is None else set_by_owner


@dataclass(frozen=True)
class Pressure:
    """A shortage.

    Attributes:
        bound: The threshold.
        better_since: Time since which enough is left, in seconds of the caller's clock; None if it is not.
    """

    scarce: Scarce
    room: Room
    bound: int
    better_since: float | None = None


class Pressures:
    """Shortages of a node. One begins at once, and ends when enough was left for the recovery period."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._present: dict[Scarce, Pressure] = {}

    def all(self) -> list[Pressure]:
        """Return the shortages, at most one of each kind."""
        return list(self._present.values())

    def on_measured(self, now: float, rooms: Mapping[Scarce, Room]) -> None:
        """Apply measurements. Kinds that were not measured stay as they are.

        Args:
            now: Seconds of a monotonic clock.
            rooms: Amounts that are left.
        """
        for scarce, room in rooms.items():
            after = self._judge(now, scarce, room)
            if after is None:
                self._present.pop(scarce, None)
            else:
                self._present[scarce] = after

    def _judge(self, now: float, scarce: Scarce, room: Room) -> Pressure | None:
        before = self._present.get(scarce)
        bound = self._thresholds.bound(scarce, room.total)
        if room.left < bound:
            return Pressure(scarce, room, bound)
        if before is None:
            return None
        if room.left < bound * RELIEF:
            return Pressure(scarce, room, bound)
        since = now if before.better_since is None else before.better_since
        if now - since >= self._thresholds.recovery_period:
            return None
        return Pressure(scarce, room, bound, since)
