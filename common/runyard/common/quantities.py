"""Amounts of resources as people write them: `cpu: 500m`, `memory: 16Gi`, `gpu: 2`, `licenses: 3`."""

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

from runyard.common.names import NAME

LARGEST: Final = 1 << 50
"""Largest amount, in whole units. The sum over 10,000 nodes still fits the protocol's uint64."""

_BINARY: Final = {unit: 1 << 10 * power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), start=1)}
_DECIMAL: Final = {unit: 1000**power for power, unit in enumerate(("k", "M", "G", "T", "P"), start=1)}
_BYTES: Final = {"": 1, **_BINARY, **_DECIMAL, "K": 1000}
_MEMORY: Final = {**_BYTES, **{f"{unit}B": size for unit, size in _BYTES.items()}}
_CORES: Final = {"": 1000, "m": 1}
_COUNT: Final = {"": 1}

_AMOUNT: Final = re.compile(r"(?P<number>[0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?P<unit>[A-Za-z]*)")

_MEGABYTE: Final = 1_000_000

_SHORT: Final = len("1536Mi")
"""Longest exact amount of memory, in letters. Longer ones are rounded to four digits."""


def parse_quantity(name: str, written: object) -> int:
    """Parse an amount.

    Args:
        name: The resource. `cpu` is in cores (`2`, `0.5`, `500m`); `memory` in bytes or with a unit (`16Gi`,
            `1.5G`); `gpu`, `slots` and every other name in whole numbers.
        written: A number or a text.

    Returns:
        Thousandths of a core, bytes, or whole units, rounded up.

    Raises:
        ValueError: The name or the amount cannot be used; the message says what to write.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"the name {name[:80]!r} is not letters, digits, '.', '_' and '-', 128 at most")
    match name:
        case "cpu":
            return _whole(_read(written, _CORES, "a number of cores; write for example 2, 0.5 or 500m"))
        case "memory":
            return _read_memory(written)
        case _:
            return _read_whole(written)


def show_quantity(name: str, amount: int) -> str:
    """Return an amount as people write it: `2` or `0.5` for cores, `16Gi` or `31.26Gi` for memory, `3`.

    Args:
        name: The resource.
        amount: In whole units, as `parse_quantity` gives it.
    """
    match name:
        case "cpu":
            return f"{Decimal(amount) / 1000:f}"
        case "memory":
            return _show_bytes(amount)
        case _:
            return str(amount)


def _read(written: object, units: dict[str, int], what: str) -> Decimal:
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise ValueError(f"{_quoted(written)} is not {what}")
    text = f"{Decimal(str(written)):f}" if isinstance(written, float) else str(written).strip()
    parts = _AMOUNT.fullmatch(text)
    if parts is None or parts["unit"] not in units:
        raise ValueError(f"{_quoted(written)} is not {what}")
    amount = Decimal(parts["number"]) * units[parts["unit"]]
    if amount > LARGEST:
        raise ValueError(f"{_quoted(written)} is more than there can be")
    return amount


def _read_memory(written: object) -> int:
    amount = _read(written, _MEMORY, "an amount of memory; write for example 512M or 16Gi")
    if 0 < amount < _MEGABYTE:
        raise ValueError(f"{_quoted(written)} is less than a megabyte; write the unit, as in 512M or 16Gi")
    return _whole(amount)


def _read_whole(written: object) -> int:
    what = "a whole number; write for example 1"
    amount = _read(written, _COUNT, what)
    if amount % 1:
        raise ValueError(f"{_quoted(written)} is not {what}")
    return int(amount)


def _whole(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_CEILING))


def _show_bytes(amount: int) -> str:
    units = [*_BINARY.items(), *_DECIMAL.items()]
    exact = [f"{amount // size}{unit}" for unit, size in units if amount and amount % size == 0]
    shortest = min(exact, key=len, default=str(amount))
    if len(shortest) <= _SHORT:
        return shortest
    unit, size = next((unit, size) for unit, size in reversed(_BINARY.items()) if size <= amount)
    return f"{float(f'{amount / size:.4g}'):g}{unit}"


def _quoted(written: object) -> str:
    return repr(written)[:80]
