"""Countable things that nodes have and runs take, by name, in whole units."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

SLOTS: Final = "slots"
"""Runs at a time. Every run takes one."""

CPU: Final = "cpu"
"""Thousandths of a core."""

MEMORY: Final = "memory"
"""Bytes."""

GPU: Final = "gpu"
"""Whole devices."""


@dataclass(frozen=True)
class Resources:
    """Amounts by name, each above zero; ordered by name, so that equal amounts are equal.

    Only in what a layer wants may an amount be zero: it takes away what the layers below ask for.
    """

    amounts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, amounts: Mapping[str, int]) -> Self:
        """From a mapping; what is zero is left out."""
        return cls(tuple(sorted((name, amount) for name, amount in amounts.items() if amount)))

    @classmethod
    def stated(cls, amounts: Mapping[str, int]) -> Self:
        """From a mapping, with what is zero."""
        return cls(tuple(sorted(amounts.items())))

    def __getitem__(self, name: str) -> int:
        return next((amount for each, amount in self.amounts if each == name), 0)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.amounts)

    def __bool__(self) -> bool:
        return bool(self.amounts)

    def plus(self, other: "Resources") -> "Resources":
        """Both together."""
        return Resources.of({name: self[name] + other[name] for name in self._names(other)})

    def minus(self, other: "Resources") -> "Resources":
        """What is left; nothing falls below zero."""
        return Resources.of({name: max(0, self[name] - other[name]) for name in self._names(other)})

    def at_least(self, other: "Resources") -> "Resources":
        """By name, the larger of both."""
        return Resources.of({name: max(self[name], other[name]) for name in self._names(other)})

    def overlaid(self, other: "Resources") -> "Resources":
        """These, replaced by what `other` names; a zero stays, so that it still counts for layers below."""
        return Resources.stated({**dict(self.amounts), **dict(other.amounts)})

    def lacking(self, offered: Mapping[str, int]) -> str | None:
        """The first name of which `offered` has too little, or None if all of it fits."""
        for name, amount in self.amounts:
            if offered.get(name, 0) < amount:
                return name
        return None

    def _names(self, other: "Resources") -> set[str]:
        return {name for name, _ in (*self.amounts, *other.amounts)}


NOTHING: Final = Resources()
ONE_SLOT: Final = Resources(((SLOTS, 1),))
