"""Amounts of resources as people write them: `cpu: 500m`, `memory: 16Gi`, `gpu: 2`, `licenses: 3`."""

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

from runyard.client.service.names import NAME

LARGEST: Final = 10**15
"""The most of anything, in its whole units: the sum over 10,000 nodes still fits the protocol's uint64."""

_NUMBER: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[A-Za-z]*)", re.ASCII)
_CPU_UNITS: Final = {"": Decimal(1000), "m": Decimal(1)}
_BINARY: Final = ("Ki", "Mi", "Gi", "Ti", "Pi")
_SIZE_UNITS: Final = {
    "": Decimal(1),
    **{unit: Decimal(1024**power) for power, unit in enumerate(_BINARY, 1)},
    **{unit: Decimal(1000**power) for power, unit in enumerate(("k", "M", "G", "T", "P"), 1)},
}
_COUNT_UNITS: Final = {"": Decimal(1)}


def parse_quantity(name: str, value: object) -> int:
    """Reads one amount.

    Args:
        name: Of the resource. `cpu` is in cores (`2`, `0.5`, `500m`); `memory` in bytes, or with a unit
            (`16Gi`, `1.5G`); `gpu`, `slots` and every other name in whole numbers.
        value: A number, or a text as above.

    Returns:
        Whole units: thousandths of a core, bytes, devices, runs. Parts of a unit count as a whole one.

    Raises:
        ValueError: The name or the amount cannot be used; the message names the resource and what to write.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"resource {name!r}: a name is letters, digits, '.', '_' and '-', 128 at most")
    units, remedy = _units_of(name)
    written = _NUMBER.fullmatch(_text(value))
    if written is None or written["unit"] not in units:
        raise ValueError(f"{name}: {value!r} is not an amount; {remedy}")
    amount = Decimal(written["number"]) * units[written["unit"]]
    if units is _COUNT_UNITS and amount % 1:
        raise ValueError(f"{name}: {value!r} is not a whole number; {remedy}")
    if amount > LARGEST:
        raise ValueError(
            f"{name}: {value!r} is more than can be counted; {show_quantity(name, LARGEST)} at most"
        )
    return int(amount.to_integral_value(ROUND_CEILING))


def show_quantity(name: str, amount: int) -> str:
    """The amount in a short form for people: `1.5`, `16Gi`, `3`. Memory is rounded to four digits.

    Args:
        name: Of the resource.
        amount: In whole units, as `parse_quantity` gives it.
    """
    match name:
        case "cpu":
            return f"{Decimal(amount) / 1000:f}"
        case "memory":
            return _size(amount)
        case _:
            return str(amount)


def _units_of(name: str) -> tuple[dict[str, Decimal], str]:
    match name:
        case "cpu":
            return _CPU_UNITS, "write cores as 2 or 0.5, or thousandths as 500m"
        case "memory":
            return _SIZE_UNITS, "write bytes, or a size such as 512Mi, 16Gi or 1.5G"
        case _:
            return _COUNT_UNITS, "write a whole number such as 2"


def _text(value: object) -> str:
    if isinstance(value, bool):  # which Python takes for a number
        return ""
    if isinstance(value, float):
        return f"{Decimal(str(value)):f}"
    return str(value).strip() if isinstance(value, int | str) else ""


def _size(amount: int) -> str:
    power = min((amount.bit_length() - 1) // 10, len(_BINARY)) if amount else 0
    unit = _BINARY[power - 1] if power else ""
    return f"{float(f'{amount / 1024**power:.4g}'):g}{unit}"
