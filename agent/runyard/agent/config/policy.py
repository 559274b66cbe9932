"""The owner's policy as the agent's settings have it."""

import posixpath

from pydantic import ValidationInfo, field_validator

from runyard.agent.config.docker import Allow
from runyard.common.names import NAME
from runyard.common.quantities import parse_quantity
from runyard.common.service.settings import Settings

ANY = "*"
"""The pattern that everything matches."""


def is_plain_path(path: str) -> bool:
    """Whether a path is absolute and without detours, by which it could look like another."""
    return path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path


class Profile(Settings):
    """A kind of launch that the owner allows. What a profile leaves out, it does not limit.

    Entries are patterns: `*` stands for any text, `/` included. The owner's own settings are not held against
    them, such as the interpreter of `interpreters` or the image of `docker`.
    """

    name: str
    """Name of the profile, for messages."""

    code_locations: tuple[str, ...] = (ANY,)
    """Code locations whose runs it is for."""

    drivers: tuple[str, ...] = (ANY,)
    """What may start workers: `process`, `docker`..."""

    interpreters: tuple[str, ...] = (ANY,)
    """Python interpreters that a launch may name, as absolute paths, such as `/opt/*/bin/python`."""

    working_directories: tuple[str, ...] = (ANY,)
    """Where a launch may have a process start, as absolute paths."""

    users: tuple[str, ...] = (ANY,)
    """As whom a process may run; see `isolation.run_as`."""

    environment: tuple[str, ...] = (ANY,)
    """Names of variables that a launch may set. Dangerous ones count only if they are written out in full."""

    memory: int | None = None
    """The most that a run may reserve, in bytes, also as in 16Gi; it must then reserve some."""

    cpu: int | None = None
    """As `memory`, in cores: `2`, `0.5`, `500m`."""

    containers: Allow = Allow()
    """The rules of `docker.allow`, which they replace."""

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
    """What the owner of this node lets others do with it: all that one of the profiles allows."""

    profiles: tuple[Profile, ...] = ()
    """The kinds of launches that are allowed. None: all but what `docker.allow` forbids."""

    allow_root: bool = False
    """Whether processes may run as root."""

    allow_engine_socket: bool = False
    """Whether containers may get the socket of a container engine: whoever has it is root on this machine."""

    @field_validator("profiles")
    @classmethod
    def _distinct(cls, profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
        names = [profile.name for profile in profiles]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"there are two profiles {name!r}; refusals could not tell which one")
        return profiles
