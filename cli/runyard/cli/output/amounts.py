"""Used and total amounts of node resources, short, for tables."""

from collections.abc import Mapping

from runyard.common.quantities import show_quantity

IN_COLUMNS = ("slots", "cpu", "memory")
"""What has a column of its own in lists; every node offers it."""


def taken(name: str, allocated: Mapping[str, int], offered: Mapping[str, int]) -> str:
    """`1/4`: taken of offered; empty if there is neither."""
    if name not in offered and name not in allocated:
        return ""
    amounts = (allocated.get(name, 0), offered.get(name, 0))
    return "/".join(show_quantity(name, amount) for amount in amounts)


def taken_of_the_rest(allocated: Mapping[str, int], offered: Mapping[str, int]) -> str:
    """`gpu 1/2 licenses 0/3`: resources without their own column."""
    names = sorted({*allocated, *offered}.difference(IN_COLUMNS))
    return " ".join(f"{name} {taken(name, allocated, offered)}" for name in names)


def in_order(*amounts: Mapping[str, int]) -> list[str]:
    """All names: first those that every node has, then the others by name."""
    names = {name for each in amounts for name in each}
    return [*(name for name in IN_COLUMNS if name in names), *sorted(names.difference(IN_COLUMNS))]
