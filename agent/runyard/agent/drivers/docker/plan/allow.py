"""The owner's rules: what others may ask of the engine. Whoever can ask for anything, owns the machine."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from runyard.agent.drivers.docker.plan.context import DockerContext
from runyard.agent.drivers.docker.plan.kwargs import HARMLESS, volume_list
from runyard.agent.drivers.docker.settings import Allow


@dataclass(frozen=True)
class Violation:
    """Something that a launch asks for, and that the owner does not allow."""

    rule: str
    """The key in `Allow`."""
    reason: str


def violations(allow: Allow, image: str, context: DockerContext) -> Iterator[Violation]:
    """Holds what comes from outside against the owner's rules.

    Args:
        allow: The rules.
        image: As the run or the code location names it; empty for the owner's own.
        context: What the code location asks for.
    """
    kwargs = context.container_kwargs
    yield from _not_among("images", allow.images, [image] if image else [])
    try:
        yield from _not_among("mounts", allow.mounts, mount_sources(kwargs))
        if any(mount.get("VolumeOptions") for mount in _mounts(kwargs)):  # its driver may mount any folder
            yield Violation("mounts", "container_kwargs mounts: VolumeOptions is covered by no rule")
    except ValueError as error:
        yield Violation("mounts", str(error))
    networks = [*context.networks, *_present(kwargs, "network_mode")]
    yield from _not_among("networks", allow.networks, map(str, networks))
    yield from _not_among("users", allow.users, map(str, _present(kwargs, "user")))
    by_name = [entry for entry in context.env_vars if "=" not in entry]
    yield from _not_among("env_vars", allow.env_vars, by_name)
    beyond = sorted(set(kwargs) - HARMLESS - {"volumes", "mounts", "network_mode", "user"})
    if beyond and not allow.privileged:
        yield Violation("privileged", f"container_kwargs {', '.join(beyond)} reach beyond the container")


def mount_sources(kwargs: Mapping[str, Any]) -> list[str]:
    """The folders of this machine, and the volumes, that arguments of `containers.create` mount.

    Raises:
        ValueError: They have another form.
    """
    sources = []
    for volume in volume_list(kwargs.get("volumes") or []):
        source, colon, _ = volume.partition(":")
        if colon:  # without one it is a fresh volume of the container's own
            sources.append(_plain(source))
    for mount in _mounts(kwargs):
        if mount.get("Type") != "tmpfs" and mount.get("Source"):
            sources.append(_plain(str(mount["Source"])))
    return sources


def _mounts(kwargs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    mounts = kwargs.get("mounts") or []
    if not isinstance(mounts, list) or not all(isinstance(mount, Mapping) for mount in mounts):
        raise ValueError("container_kwargs mounts: must be mappings with Type, Source and Target")
    return mounts


def _not_among(rule: str, patterns: Sequence[str], asked: Iterable[str]) -> Iterator[Violation]:
    for item in asked:
        if not any(fnmatchcase(item, pattern) for pattern in patterns):
            yield Violation(rule, f"{item!r} is not among {', '.join(patterns) or 'the allowed: none is'}")


def _present(kwargs: Mapping[str, Any], name: str) -> list[Any]:
    return [kwargs[name]] if kwargs.get(name) not in (None, "") else []


def _plain(source: str) -> str:
    """The path without the detours by which it could look like another."""
    return f"/{posixpath.normpath(source).lstrip('/')}" if source.startswith("/") else source
