"""Limits of one attempt, as its run directory has them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

CGROUP_2 = "cgroup2"
CGROUP_1 = "cgroup1"
SYSTEMD = "systemd"
WATCHDOG = "watchdog"

BACKENDS = (CGROUP_2, CGROUP_1, SYSTEMD, WATCHDOG)
"""Means of enforcement, the best first."""

BY_THE_KERNEL = (CGROUP_2, CGROUP_1, SYSTEMD)
"""Limits that hold without a watchdog."""


@dataclass(frozen=True)
class LimitsPlan:
    """Limits of one attempt, and the means by which they are enforced."""

    backend: str
    """One of `BACKENDS`; `rung` on disk, as in 0.1.0."""
    memory: int = 0
    """Bytes that all processes of the attempt may take together; 0: no limit."""
    cpu: int = 0
    """Thousandths of a core; 0: no limit."""
    groups: tuple[str, ...] = ()
    """Directories of the control groups to be made: of version 1 one for each controller."""
    unit: str = ""
    """Name of the systemd scope to be made."""
    required: bool = False
    """Without these means the worker must not start."""

    def as_record(self) -> dict[str, Any]:
        """For `SpecRecord.limits`."""
        record = asdict(self)
        record["rung"] = record.pop("backend")
        return record


def plan_of(record: Mapping[str, Any]) -> LimitsPlan | None:
    """From `SpecRecord.limits`; None for an attempt without limits."""
    if not record:
        return None
    return LimitsPlan(
        backend=str(record.get("rung", WATCHDOG)),
        memory=int(record.get("memory", 0)),
        cpu=int(record.get("cpu", 0)),
        groups=tuple(map(str, record.get("groups", ()))),
        unit=str(record.get("unit", "")),
        required=bool(record.get("required", False)),
    )
