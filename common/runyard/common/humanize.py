"""Durations and sizes in words for people, the same in every message, table and event."""

from collections.abc import Mapping


def duration_words(seconds: float) -> str:
    """Return a span for sentences, in at most two units: `42 s`, `7 min`, `1 h 20 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return _two_units(minutes, 60, "h", "min")
    return _two_units(round(minutes / 60), 24, "d", "h")


def short_duration(seconds: float) -> str:
    """Return a span for tables, in at most two units: `0.4s`, `12s`, `4m05s`, `3h20m`, `5d02h`."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if minutes == 0:
        return f"{whole}s"
    if hours == 0:
        return f"{minutes}m{whole % 60:02}s"
    if days == 0:
        return f"{hours}h{minutes % 60:02}m"
    return f"{days}d{hours % 24:02}h"


def byte_size(count: int) -> str:
    """Return a number of bytes in the largest binary unit that fits: `512 B`, `1.5 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _two_units(count: int, size: int, large: str, small: str) -> str:
    whole, rest = divmod(count, size)
    return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"


def reason_list(counts: Mapping[str, int]) -> str:
    """`8 did not match label zone=a, 3 insufficient memory, 1 draining`: the most frequent reason first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in ordered)


def nodes_available(available: int, reasons: Mapping[str, int]) -> str:
    """`0/12 nodes available: 8 did not match label zone=a, 3 insufficient memory, 1 draining`.

    Args:
        available: Nodes that can take the run.
        reasons: Number of the other nodes by the reason against them.
    """
    total = available + sum(reasons.values())
    return f"{available}/{total} nodes available" + (f": {reason_list(reasons)}" if reasons else "")
