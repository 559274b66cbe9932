"""The owner's rules: what others may ask of the engine. Whoever can ask for anything, owns the machine."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from runyard.agent.drivers.docker.context import DockerContext
from runyard.agent.drivers.docker.kwargs import HARMLESS, volume_list
from runyard.agent.drivers.docker.settings import Allow


class NotAllowed(Exception):
    """The owner of this node does not allow what a launch asks for; the message names the rule."""


def require_allowed(allow: Allow, image: str, context: DockerContext) -> None:
    """Holds what comes from outside against the owner's rules.

    Args:
        allow: The rules.
        image: As the run or the code location names it; empty for the owner's own.
        context: What the code location asks for.

    Raises:
        NotAllowed: Something is not covered by a rule.
    """
    if image:
        _require("images", allow.images, [image])
    kwargs = context.container_kwargs
    _require("mounts", allow.mounts, _mounts(kwargs))
    _require("networks", allow.networks, [*context.networks, *_present(kwargs, "network_mode")])
    _require("users", allow.users, [str(user) for user in _present(kwargs, "user")])
    _require("env_vars", allow.env_vars, [entry for entry in context.env_vars if "=" not in entry])
    covered = HARMLESS | {"volumes", "mounts", "network_mode", "user"}
    beyond = sorted(set(kwargs) - covered)
    if beyond and not allow.privileged:
        raise NotAllowed(
            f"container_kwargs {', '.join(beyond)} reach beyond the container, which docker.allow.privileged "
            "of this node forbids"
        )


def _require(rule: str, patterns: Sequence[str], asked: Iterable[str]) -> None:
    for item in asked:
        if not any(fnmatchcase(item, pattern) for pattern in patterns):
            allowed = ", ".join(patterns) or "none"
            raise NotAllowed(f"{item!r} is not among docker.allow.{rule} of this node, which has {allowed}")


def _present(kwargs: Mapping[str, Any], name: str) -> list[Any]:
    return [kwargs[name]] if kwargs.get(name) not in (None, "") else []


def _mounts(kwargs: Mapping[str, Any]) -> Iterator[str]:
    for volume in volume_list(kwargs.get("volumes") or []):
        source, colon, _ = volume.partition(":")
        if colon:  # without one it is a fresh volume of the container's own
            yield _plain(source)
    for mount in kwargs.get("mounts") or []:
        if not isinstance(mount, Mapping):
            raise NotAllowed("container_kwargs mounts: must be mappings with Type, Source and Target")
        if mount.get("Type") != "tmpfs" and mount.get("Source"):
            yield _plain(str(mount["Source"]))
        if mount.get("VolumeOptions"):  # a volume's driver may mount any folder
            raise NotAllowed(
                "container_kwargs mounts: VolumeOptions is covered by no rule of docker.allow.mounts"
            )


def _plain(source: str) -> str:
    """The path without the detours by which it could look like another."""
    return f"/{posixpath.normpath(source).lstrip('/')}" if source.startswith("/") else source
