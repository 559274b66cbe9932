"""The `references` section, and values of environment variables in the settings."""

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import PlainValidator, field_validator

from runyard.common.references import FromEnvironment, FromFile, Reference, from_environment, from_file
from runyard.common.secrets import Secret
from runyard.common.service.settings import Settings


class ReferenceRules(Settings):
    """Values on this node that launches and code locations may refer to. Default: none."""

    env: tuple[str, ...] = ()
    """Names of variables in the agent's own environment. `*` matches any text, as in `RUNS_*`."""

    files: tuple[str, ...] = ()
    """Paths of files. `*` matches any text within one path component, as in `/run/secrets/*`."""

    @field_validator("files")
    @classmethod
    def _absolute(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in files:
            if not pattern.startswith("/"):
                raise ValueError(f"{pattern!r} must be an absolute path, such as /run/secrets/*")
        return files

    def allow(self, reference: Reference) -> bool:
        """True if a launch may use this reference."""
        match reference:
            case FromEnvironment(name):
                return any(fnmatchcase(name, pattern) for pattern in self.env)
            case FromFile(path):
                return any(_matches(path, pattern) for pattern in self.files)


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _setting(written: object) -> Secret | Reference:
    match written:
        case Secret() | FromEnvironment() | FromFile():
            return written
        case str():
            return Secret(written)
        case {"env": str(name), **rest} if not rest:
            return from_environment(name)
        case {"file": str(path), **rest} if not rest:
            return from_file(path)
    raise ValueError("must be a text (put numbers in quotes), {env: NAME} or {file: /path}")


EnvironmentSetting = Annotated[Secret | Reference, PlainValidator(_setting)]
"""Value of a variable in the agent's settings: a text, or a reference to one on this node."""
