"""The `isolation` section: separating workers from each other and from the machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from runyard.common.service.settings import Settings

IsolationBackendName = Literal["cgroup2", "cgroup1", "systemd", "watchdog"]


class IsolationSettings(Settings):
    """Separation of workers from each other and from the machine."""

    renamed: ClassVar[Mapping[str, str]] = {"rungs": "backends"}

    backends: tuple[IsolationBackendName, ...] = ("cgroup2", "cgroup1", "systemd", "watchdog")
    """Mechanisms that may enforce limits, in order of preference. The first one that works is used."""

    cgroup: Path | None = None
    """Directory of a control group that is delegated to the agent. Default: the one it was started in."""

    run_as: dict[str, str] = Field(default_factory=dict)
    """User that workers run as, by code location; `*` stands for all others. Default: the agent's user."""

    users: tuple[str, ...] = ()
    """Users that workers may run as. `run_as` can only name users from this list."""

    scratch_directory: Path | None = None
    """Parent of the directories that runs get as TMPDIR. A run's directory is deleted when the run ends."""

    no_new_privs: bool = True
    """Prevent workers from gaining privileges, for example with `sudo`."""

    core_dumps: bool = False
    """Let workers that crash write a core file, which holds everything in their memory."""

    @field_validator("cgroup", "scratch_directory")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError(f"{value} must be an absolute path")
        return value

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        for location, user in self.run_as.items():
            if user not in self.users:
                raise ValueError(f"run_as names {user} for {location}; allow it by adding it to users")
        return self

    def user_of(self, location: str) -> str:
        """Return the user that workers of a code location run as; empty for the agent's own user."""
        return self.run_as.get(location, self.run_as.get("*", ""))
