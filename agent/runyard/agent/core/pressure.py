"""When a node is too short of something for new runs, and when it has enough again."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Scarce(enum.Enum):
    """What a node can be short of."""

    MEMORY = "memory"
    DISK = "disk"
    PIDS = "pids"


@dataclass(frozen=True)
class Room:
    """How much is left of something: bytes, or processes."""

    left: int
    total: int


@dataclass(frozen=True)
class Bound:
    """How little may be left where nobody says otherwise: a share of all, or an amount if that is less."""

    divisor: int
    most: int

    def of(self, total: int) -> int:
        """How little it is on a machine that has so much."""
        return min(total // self.divisor, self.most)


BOUNDS: Mapping[Scarce, Bound] = {
    Scarce.MEMORY: Bound(40, 512 << 20),
    Scarce.DISK: Bound(20, 1 << 30),
    Scarce.PIDS: Bound(20, 1_000),
}
"""Of memory it is half of what the offer keeps back for the system."""

RELIEF = 1.25
"""With so many times the bound left, there is enough again."""


@dataclass(frozen=True)
class Thresholds:
    """When the pressure begins and ends.

    Attributes:
        least: In bytes or processes; with less left, there is pressure. 0: there never is.
        calm: Seconds for which there must be enough again before it is over.
    """

    least: Mapping[Scarce, int] = field(default_factory=dict)
    calm: float = 30.0

    def bound(self, scarce: Scarce, total: int) -> int:
        """How little may be left."""
        set_by_owner = self.least.get(scarce)
        return BOUNDS[scarce].of(total) if set_by_owner is None else set_by_owner


@dataclass(frozen=True)
class Pressure:
    """The node is short of something.

    Attributes:
        bound: How little may be left.
        better_since: When there was enough again, in seconds of the caller's clock; None: there is not.
    """

    scarce: Scarce
    room: Room
    bound: int
    better_since: float | None = None


class Pressures:
    """What the node is short of. Begins at once, and ends only when there has been enough for a while."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._present: dict[Scarce, Pressure] = {}

    def all(self) -> list[Pressure]:
        """One at most of each kind."""
        return list(self._present.values())

    def on_measured(self, now: float, rooms: Mapping[Scarce, Room]) -> None:
        """Takes measurements; what could not be measured stays as it was.

        Args:
            now: Seconds of a clock that only goes forward.
            rooms: What is left.
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
        return None if now - since >= self._thresholds.calm else Pressure(scarce, room, bound, since)
