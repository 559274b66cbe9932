"""The `policy` section: launches that the owner of this node allows."""

import posixpath

from pydantic import ValidationInfo, field_validator

from runyard.agent.config.docker import Allow
from runyard.common.names import NAME
from runyard.common.quantities import parse_quantity
from runyard.common.service.settings import Settings

ANY = "*"
"""Pattern that matches everything."""


def is_plain_path(path: str) -> bool:
    """True if a path is absolute and normalized, so that it cannot pass for another one."""
    return path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path


class Profile(Settings):
    """Kind of launches that the owner allows. A profile does not limit what it leaves out.

    Entries are patterns: `*` matches any text, including `/`. They do not apply to values of the owner's own
    settings, such as the interpreters in `interpreters` or the image in `docker`.
    """

    name: str
    """Name of the profile, for messages."""

    code_locations: tuple[str, ...] = (ANY,)
    """Code locations of the runs."""

    drivers: tuple[str, ...] = (ANY,)
    """Drivers that may start workers: `process`, `docker`..."""

    interpreters: tuple[str, ...] = (ANY,)
    """Python interpreters that a launch may name: absolute paths such as `/opt/*/bin/python`."""

    working_directories: tuple[str, ...] = (ANY,)
    """Working directories that a launch may name: absolute paths."""

    users: tuple[str, ...] = (ANY,)
    """Users that a process may run as; see `isolation.run_as`."""

    environment: tuple[str, ...] = (ANY,)
    """Names of variables that a launch may set. Dangerous ones must be listed by their full name."""

    memory: int | None = None
    """Largest amount that a run may reserve, in bytes, such as 16Gi. The run must then reserve some."""

    cpu: int | None = None
    """Largest amount that a run may reserve, in cores: `2`, `0.5`, `500m`. The run must then reserve some."""

    containers: Allow = Allow()
    """Rules for containers. They replace `docker.allow`."""

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"{value[:80]!r} must be letters, digits, '.', '_' and '-', 128 at most")
        return value

    @field_validator("interpreters", "working_directories")
    @classmethod
    def _paths(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if pattern != ANY and not is_plain_path(pattern):
                raise ValueError(
                    f"{pattern!r} must be an absolute path without '..', '//' or a '/' at its end"
                )
        return patterns

    @field_validator("memory", "cpu", mode="before")
    @classmethod
    def _amount(cls, value: object, info: ValidationInfo) -> object:
        return None if value is None else parse_quantity(str(info.field_name), value)


class PolicySettings(Settings):
    """Launches that the owner of this node allows: those that match one of the profiles."""

    profiles: tuple[Profile, ...] = ()
    """Kinds of launches that are allowed. Default: all except those that `docker.allow` forbids."""

    allow_root: bool = False
    """Allow processes to run as root."""

    allow_engine_socket: bool = False
    """Allow containers to mount a container engine's socket, which gives them root access to this machine."""

    @field_validator("profiles")
    @classmethod
    def _distinct(cls, profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
        names = [profile.name for profile in profiles]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"there are two profiles {name!r}; refusals could not tell which one")
        return profiles
