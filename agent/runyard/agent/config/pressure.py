"""The `pressure` section: thresholds below which the node accepts no new runs."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, ValidationInfo, field_validator

from runyard.common.quantities import parse_quantity
from runyard.common.service.settings import Settings


class PressureSettings(Settings):
    """Thresholds below which the node accepts no new runs. Defaults are in `core.pressure.BOUNDS`."""

    renamed: ClassVar[Mapping[str, str]] = {"calm": "recovery_period"}

    memory: int | None = None
    """Bytes of available memory, such as 512Mi. 0 disables the check."""

    disk: int | None = None
    """Bytes free on the disk of the state directory, such as 1Gi. 0 disables the check."""

    pids: int | None = None
    """Number of processes and threads that can still be created. 0 disables the check."""

    recovery_period: float = Field(default=30.0, ge=0)
    """Seconds for which enough must be available before the node accepts runs again."""

    @field_validator("memory", "disk", "pids", mode="before")
    @classmethod
    def _amount(cls, value: object, info: ValidationInfo) -> object:
        name = "pids" if info.field_name == "pids" else "memory"
        return None if value is None else parse_quantity(name, value)
