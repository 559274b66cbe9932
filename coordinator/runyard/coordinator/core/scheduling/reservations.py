"""Nodes reserved for runs that smaller runs would otherwise starve."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.scheduling.equivalence_classes import EquivalenceClass

MAX_RESERVATIONS: Final = 4
"""Limit on reserved nodes. Each is partly idle until its run fits."""


@dataclass(frozen=True)
class Reservation:
    """Reservation of one node for the first run of one class.

    Attributes:
        above: Runs of a higher priority than this may still use the node.
        until: Monotonic seconds.
    """

    node_id: str
    run_class: EquivalenceClass
    above: int
    until: float


class Reservations:
    """All reservations, by node and by class.

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
        """Return the reservation of a node."""
        return self._by_node.get(node_id)

    def of(self, run_class: EquivalenceClass) -> Reservation | None:
        """Return the reservation of a class."""
        return self._by_class.get(run_class)

    def reserved_for_others(self, run_class: EquivalenceClass) -> list[str]:
        """Return the nodes that runs of the class may not use."""
        return [
            each.node_id
            for each in self._by_node.values()
            if each.run_class is not run_class and run_class.key.priority <= each.above
        ]

    def make(self, reservation: Reservation) -> None:
        """Add a reservation."""
        self.version += 1
        self._by_node[reservation.node_id] = reservation
        self._by_class[reservation.run_class] = reservation

    def end(self, reservation: Reservation) -> None:
        """Remove a reservation."""
        self.version += 1
        del self._by_node[reservation.node_id]
        del self._by_class[reservation.run_class]
