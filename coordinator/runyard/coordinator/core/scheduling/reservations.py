"""Nodes that are kept for runs which smaller ones would keep out for ever."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.scheduling.equivalence_classes import Lane

AT_A_TIME: Final = 4
"""How many nodes are reserved at most. Each stands partly idle until its run fits."""


@dataclass(frozen=True)
class Reservation:
    """One node for the first run of one lane.

    Attributes:
        above: Runs of a higher priority than this may go there all the same.
        until: Monotonic seconds.
    """

    node_id: str
    lane: Lane
    above: int
    until: float


class Reservations:
    """All of them.

    Attributes:
        version: Counts every change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._by_node: dict[str, Reservation] = {}
        self._by_lane: dict[Lane, Reservation] = {}

    def __len__(self) -> int:
        return len(self._by_node)

    def __iter__(self) -> Iterator[Reservation]:
        return iter(list(self._by_node.values()))

    @property
    def has_room(self) -> bool:
        """True if one more node may be reserved."""
        return len(self._by_node) < AT_A_TIME

    def on(self, node_id: str) -> Reservation | None:
        """Who has the node reserved."""
        return self._by_node.get(node_id)

    def of(self, lane: Lane) -> Reservation | None:
        """What the lane has reserved."""
        return self._by_lane.get(lane)

    def kept_from(self, lane: Lane) -> list[str]:
        """The nodes that the lane's runs may not have."""
        return [
            each.node_id
            for each in self._by_node.values()
            if each.lane is not lane and lane.shape.priority <= each.above
        ]

    def make(self, reservation: Reservation) -> None:
        """Reserves a node."""
        self.version += 1
        self._by_node[reservation.node_id] = reservation
        self._by_lane[reservation.lane] = reservation

    def end(self, reservation: Reservation) -> None:
        """Opens a node to all again."""
        self.version += 1
        del self._by_node[reservation.node_id]
        del self._by_lane[reservation.lane]
