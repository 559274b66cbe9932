"""Environment variables whose values a node looks up, as people write them: `KEY@env:NAME`, `KEY@file:/path`.

A literal cannot be mistaken for one: `KEY=VALUE` begins with the name and an equals sign.
Standard library only.
"""

import re
from dataclasses import dataclass
from typing import Final

MARKS: Final = ("@env:", "@file:")

_REFERENCE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)@(env|file):(.*)", re.DOTALL)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class FromEnvironment:
    """Reference to a variable of the agent's own environment."""

    name: str

    def __str__(self) -> str:
        return f"env:{self.name}"


@dataclass(frozen=True)
class FromFile:
    """Reference to the content of a file on the node, without a final line break."""

    path: str

    def __str__(self) -> str:
        return f"file:{self.path}"


Reference = FromEnvironment | FromFile


def is_reference(entry: str) -> bool:
    """True if an entry of `env_vars` refers to its value instead of holding it."""
    return _REFERENCE.fullmatch(entry) is not None


def parse_reference(entry: str) -> tuple[str, Reference]:
    """Return the name of a variable and the reference to its value.

    Args:
        entry: An entry for which `is_reference` is true.

    Raises:
        ValueError: The reference is not valid; the message says what to write.
    """
    match = _REFERENCE.fullmatch(entry)
    if match is None:
        raise ValueError(f"{entry.partition('=')[0][:80]!r} must be KEY@env:NAME or KEY@file:/path")
    name, kind, source = match.groups()
    return name, from_environment(source) if kind == "env" else from_file(source)


def from_environment(name: str) -> FromEnvironment:
    """Return the reference to a variable of the agent.

    Raises:
        ValueError: This is not a name of a variable.
    """
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            f"env:{name[:80]} must name a variable of the agent's environment, such as env:DB_PASSWORD"
        )
    return FromEnvironment(name)


def from_file(path: str) -> FromFile:
    """Return the reference to a file on the node.

    Raises:
        ValueError: The path is not absolute, or holds '.', '..' or '//', which could evade rules.
    """
    parts = path.split("/")
    if not path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts[1:]):
        raise ValueError(f"file:{path[:200]} must be an absolute path without '.', '..' and '//'")
    return FromFile(path)
