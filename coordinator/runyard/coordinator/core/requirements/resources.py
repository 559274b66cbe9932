"""Amounts of countable resources of nodes and runs, by name, in whole units."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

SLOTS: Final = "slots"
"""Concurrent runs. Every run takes one."""

CPU: Final = "cpu"
"""Thousandths of a core."""

MEMORY: Final = "memory"
"""Bytes."""

GPU: Final = "gpu"
"""Whole devices."""


@dataclass(frozen=True)
class Resources:
    """Amounts by name, each above zero; ordered by name, so that equal amounts are equal.

    Only in a requirement layer may an amount be zero: it cancels the amount of the layers below.
    """

    amounts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, amounts: Mapping[str, int]) -> Self:
        """Build from a mapping, without amounts of zero."""
        return cls(tuple(sorted((name, amount) for name, amount in amounts.items() if amount)))

    @classmethod
    def stated(cls, amounts: Mapping[str, int]) -> Self:
        """Build from a mapping, with amounts of zero."""
        return cls(tuple(sorted(amounts.items())))

    def __getitem__(self, name: str) -> int:
        return next((amount for each, amount in self.amounts if each == name), 0)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.amounts)

    def __bool__(self) -> bool:
        return bool(self.amounts)

    def plus(self, other: "Resources") -> "Resources":
        """Return the sums."""
        return Resources.of({name: self[name] + other[name] for name in self._names(other)})

    def minus(self, other: "Resources") -> "Resources":
        """Return the differences; none falls below zero."""
        return Resources.of({name: max(0, self[name] - other[name]) for name in self._names(other)})

    def at_least(self, other: "Resources") -> "Resources":
        """Return, by name, the larger amount."""
        return Resources.of({name: max(self[name], other[name]) for name in self._names(other)})

    def overlaid(self, other: "Resources") -> "Resources":
        """Return these amounts, overridden by those of `other`; zeros stay, as they cancel lower layers."""
        return Resources.stated({**dict(self.amounts), **dict(other.amounts)})

    def lacking(self, offered: Mapping[str, int]) -> str | None:
        """Return the first name of which `offered` has too little, or None if everything fits."""
        for name, amount in self.amounts:
            if offered.get(name, 0) < amount:
                return name
        return None

    def _names(self, other: "Resources") -> set[str]:
        return {name for name, _ in (*self.amounts, *other.amounts)}


NOTHING: Final = Resources()
ONE_SLOT: Final = Resources(((SLOTS, 1),))
