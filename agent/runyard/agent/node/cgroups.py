"""Limits and free amounts in the control groups of this process, which also apply to its workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runyard.agent.core.pressure import Room

NO_LIMIT = 1 << 62
"""Bytes. Without a limit, version 1 reports its largest number, rounded to pages."""

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True)
class Limits:
    """Limits of the groups. None: no limit."""

    cpu: int | None
    """Thousandths of a core."""
    memory: int | None
    """Bytes."""


def own_limits(membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> Limits:
    """Return the tightest limits of this process's groups and their ancestors, of versions 1 and 2.

    Args:
        membership: File such as `/proc/self/cgroup`.
        mount: Directory of the hierarchies, such as `/sys/fs/cgroup`.
    """
    try:
        groups = list(_groups(membership.read_text(), mount))
    except OSError:
        return Limits(None, None)
    return Limits(_tightest(_cpu_of, groups), _tightest(_memory_of, groups))


@dataclass(frozen=True)
class Rooms:
    """Amounts that the groups leave to their processes. None: no limit."""

    memory: Room | None
    """Bytes. File cache that can be reclaimed at once counts as free."""
    pids: Room | None
    """Processes and threads."""


def own_rooms(membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> Rooms:
    """Return what is left in the tightest of this process's groups and their ancestors.

    Args:
        membership, mount: See `own_limits`.
    """
    try:
        groups = list(_groups(membership.read_text(), mount))
    except OSError:
        return Rooms(None, None)
    return Rooms(_least(_memory_left, groups), _least(_pids_left, groups))


def _least(room_in: Callable[[Path], Room | None], groups: list[Path]) -> Room | None:
    rooms = [room for group in groups if (room := room_in(group)) is not None]
    return min(rooms, key=lambda room: room.left, default=None)


def _memory_left(group: Path) -> Room | None:
    used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
    limit = _memory_of(group)
    if used is None or limit is None or limit >= NO_LIMIT:
        return None
    words = _words(group / "memory.stat")
    figures = dict(zip(words[::2], words[1::2], strict=False))
    cached = int(figures.get("total_inactive_file", figures.get("inactive_file", "0")))
    return Room(max(0, limit - max(0, used - cached)), limit)


def _pids_left(group: Path) -> Room | None:
    used, limit = _number(group / "pids.current"), _number(group / "pids.max")
    return None if used is None or limit is None else Room(max(0, limit - used), limit)


def _number(file: Path) -> int | None:
    match _words(file):
        case [number] if number.isdecimal():
            return int(number)
    return None


def _groups(membership: str, mount: Path) -> Iterator[Path]:
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        # A container may see its groups' names outside of it; then only the root exists.
        group = [part for part in path.split("/") if part not in ("", "..")]
        for root in _roots(controllers, mount):
            yield from (root.joinpath(*group[:depth]) for depth in range(len(group) + 1))


def _roots(controllers: str, mount: Path) -> list[Path]:
    if not controllers:  # version 2, alone or beside version 1
        return [mount, mount / "unified"]
    return [mount / name for name in controllers.split(",") if name in _CONTROLLERS]


def _tightest(limit_of: Callable[[Path], int | None], groups: list[Path]) -> int | None:
    return min((limit for group in groups if (limit := limit_of(group)) is not None), default=None)


def _cpu_of(group: Path) -> int | None:
    version_1 = _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
    match _words(group / "cpu.max") or version_1:
        case [quota, period] if quota.isdecimal():
            return max(1, int(quota) * 1000 // int(period))
    return None


def _memory_of(group: Path) -> int | None:
    match _words(group / "memory.max") or _words(group / "memory.limit_in_bytes"):
        case [limit] if limit.isdecimal():
            return int(limit)
    return None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
