"""Nodes that are kept for runs which smaller ones would keep out for ever."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.scheduling.equivalence_classes import EquivalenceClass

MAX_RESERVATIONS: Final = 4
"""How many nodes are reserved at most. Each stands partly idle until its run fits."""


@dataclass(frozen=True)
class Reservation:
    """One node for the first run of one lane.

    Attributes:
        above: Runs of a higher priority than this may go there all the same.
        until: Monotonic seconds.
    """

    node_id: str
    run_class: EquivalenceClass
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
        self._by_class: dict[EquivalenceClass, Reservation] = {}

    def __len__(self) -> int:
        return len(self._by_node)

    def __iter__(self) -> Iterator[Reservation]:
        return iter(list(self._by_node.values()))

    @property
    def may_add(self) -> bool:
        """True if one more node may be reserved."""
        return len(self._by_node) < MAX_RESERVATIONS

    def on(self, node_id: str) -> Reservation | None:
        """Who has the node reserved."""
        return self._by_node.get(node_id)

    def of(self, run_class: EquivalenceClass) -> Reservation | None:
        """What the lane has reserved."""
        return self._by_class.get(run_class)

    def reserved_for_others(self, run_class: EquivalenceClass) -> list[str]:
        """The nodes that the lane's runs may not have."""
        return [
            each.node_id
            for each in self._by_node.values()
            if each.run_class is not run_class and run_class.key.priority <= each.above
        ]

    def make(self, reservation: Reservation) -> None:
        """Reserves a node."""
        self.version += 1
        self._by_node[reservation.node_id] = reservation
        self._by_class[reservation.run_class] = reservation

    def end(self, reservation: Reservation) -> None:
        """Opens a node to all again."""
        self.version += 1
        del self._by_node[reservation.node_id]
        del self._by_class[reservation.run_class]
