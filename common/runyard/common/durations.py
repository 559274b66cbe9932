"""Spans of time as people write them: `90`, `90s`, `5m`, `1h30m`, `2d`."""

import re
from typing import Final

DURATION_REMEDY: Final = "write seconds as 90, or a time such as 90s, 5m, 1h30m or 2d"

_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_NUMBER: Final = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"  # no more, so that it stays finite
_PARTS: Final = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _UNITS))


def parse_duration(text: str) -> float:
    """Parse a span of time.

    Args:
        text: A number of seconds, or numbers with the units d, h, m and s, from the largest to the smallest.

    Returns:
        Seconds.

    Raises:
        ValueError: The text is neither; the message says what to write.
    """
    written = text.strip()
    if re.fullmatch(_NUMBER, written):
        return float(written)
    parts = _PARTS.fullmatch(written)
    if not written or parts is None:
        raise ValueError(f"{text[:80]!r} is not a span of time; {DURATION_REMEDY}")
    return sum(float(number) * _UNITS[unit] for unit, number in parts.groupdict().items() if number)
