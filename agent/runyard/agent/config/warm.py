"""The `warm` section: starting runs from interpreters that have already imported their code."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from runyard.agent.core.warmth import Limits
from runyard.common.service.settings import Settings

WarmMode = Literal["off", "framework", "location"]
"""Code imported before a run starts: none, Dagster and its storage, or the user's code too."""


class WarmSettings(Settings):
    """Starting runs as forks of interpreters that have already imported their code."""

    renamed: ClassVar[Mapping[str, str]] = {"remember": "retention"}

    mode: WarmMode = "framework"
    """Code imported in advance: none (`off`), Dagster (`framework`), or the user's code too (`location`)."""

    locations: dict[str, WarmMode] = Field(default_factory=dict)
    """Modes of individual code locations, by name. They override `mode`."""

    steps: bool = True
    """Fork the step processes of the multiprocess executor from the run's process where that is safe."""

    max_servers: int = Field(default=4, ge=1, le=100)
    """Maximum number of environments with an interpreter ready. Each takes about 100 MB or more."""

    max_runs: int = Field(default=1_000, ge=1)
    """Number of runs after which an interpreter is replaced."""

    max_age: float = Field(default=6 * 3600.0, gt=0)
    """Age in seconds at which an interpreter is replaced."""

    max_rss: int = Field(default=2 << 30, ge=64 << 20)
    """Resident memory in bytes at which an interpreter is replaced."""

    min_available: float = Field(default=0.1, ge=0, le=0.9)
    """Share of the machine's memory that must be available. Below it, interpreters are closed, unused ones
    first, and no new ones are started."""

    retention: float = Field(default=7 * 86400.0, ge=0)
    """Seconds for which an environment is kept on disk after its last run, so that its interpreter can be
    prepared when the agent starts. The file holds the workers' variables. 0: nothing is kept."""

    @field_validator("mode", mode="before")
    @classmethod
    def _mode(cls, value: object) -> object:
        # YAML reads `off` as a truth value.
        return "off" if value is False else value

    @field_validator("locations", mode="before")
    @classmethod
    def _modes(cls, value: object) -> object:
        return {name: cls._mode(mode) for name, mode in value.items()} if isinstance(value, dict) else value

    def mode_of(self, location: str) -> WarmMode:
        """Return the mode for the runs of a code location."""
        return self.locations.get(location, self.mode)

    def limits(self) -> Limits:
        """Return the limits that the core enforces."""
        return Limits(self.max_servers, self.max_age, self.max_runs, self.max_rss, self.min_available)
