"""Amounts as people write them, and back: cores as `500m`, memory as `16Gi`, the rest in whole units."""

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

from runyard.coordinator.core.asks.resources import CPU, LARGEST_AMOUNT, MEMORY

_BINARY: Final = {unit: 1 << 10 * power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), start=1)}
_DECIMAL: Final = {unit: 1000**power for power, unit in enumerate(("k", "M", "G", "T", "P"), start=1)}
_BYTES: Final = {"": 1, **_BINARY, **_DECIMAL, "K": 1000}
_MEMORY: Final = {**_BYTES, **{f"{unit}B": size for unit, size in _BYTES.items()}}
_CORES: Final = {"": 1000, "m": 1}

_AMOUNT: Final = re.compile(r"(?P<number>[0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?P<unit>[A-Za-z]*)")

_MEGABYTE: Final = 1_000_000


def parse_amount(name: str, written: object) -> int:
    """Reads an amount.

    Args:
        name: Of what; `cpu` and `memory` have units of their own.
        written: A number or a text.

    Returns:
        Thousandths of a core, bytes, or whole units. What is finer than these is rounded up.

    Raises:
        ValueError: It is no amount; the message says what is wrong and what to write.
    """
    if name == CPU:
        return _read(written, _CORES, "a number of cores; write for example 2, 0.5 or 500m")
    return _read_memory(written) if name == MEMORY else _read_whole(written)


def show_amount(name: str, amount: int) -> str:
    """Shows an amount as people write it: 2 or 0.5 for cores, 16Gi for memory."""
    if name == CPU:
        return f"{amount / 1000:.15g}"
    return _show_bytes(amount) if name == MEMORY else str(amount)


def _read(written: object, units: dict[str, int], what: str) -> int:
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise ValueError(f"{_quoted(written)} is not {what}")
    text = f"{Decimal(str(written)):f}" if isinstance(written, float) else str(written).strip()
    parts = _AMOUNT.fullmatch(text)
    if parts is None or parts["unit"] not in units:
        raise ValueError(f"{_quoted(written)} is not {what}")
    amount = int((Decimal(parts["number"]) * units[parts["unit"]]).to_integral_value(ROUND_CEILING))
    if amount > LARGEST_AMOUNT:
        raise ValueError(f"{_quoted(written)} is more than there can be")
    return amount


def _read_memory(written: object) -> int:
    amount = _read(written, _MEMORY, "an amount of memory; write for example 512M or 16Gi")
    if 0 < amount < _MEGABYTE:
        raise ValueError(f"{_quoted(written)} is less than a megabyte; write the unit, as in 512M or 16Gi")
    return amount


def _read_whole(written: object) -> int:
    what = "a whole number; write for example 1"
    if _read(written, {"": 1000}, what) % 1000:
        raise ValueError(f"{_quoted(written)} is not {what}")
    return _read(written, {"": 1}, what)


def _show_bytes(amount: int) -> str:
    units = [*_BINARY.items(), *_DECIMAL.items()]
    exact = [f"{amount // size}{unit}" for unit, size in units if amount and amount % size == 0]
    if exact:
        return min(exact, key=len)
    unit, size = next(((unit, size) for unit, size in reversed(_BINARY.items()) if size <= amount), ("", 1))
    return f"{amount / size:.1f}{unit}" if unit else str(amount)


def _quoted(written: object) -> str:
    return repr(written)[:80]
