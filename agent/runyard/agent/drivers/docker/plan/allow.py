"""The owner's rules for the engine. Unrestricted access to the Docker API is root on the host."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from runyard.agent.config.docker import Allow
from runyard.agent.config.docker_kwargs import HARMLESS, mount_sources, mounts_of
from runyard.agent.drivers.docker.plan.context import DockerContext


@dataclass(frozen=True)
class Violation:
    """Something that a launch asks for, and that the owner does not allow."""

    rule: str
    """The key in `Allow`."""
    reason: str


def violations(allow: Allow, image: str, context: DockerContext) -> Iterator[Violation]:
    """Hold what comes from outside against the owner's rules.

    Args:
        allow: The rules.
        image: As the run or the code location names it; empty for the owner's own.
        context: What the code location asks for.
    """
    kwargs = context.container_kwargs
    yield from _not_among("images", allow.images, [image] if image else [])
    try:
        yield from _not_among("mounts", allow.mounts, mount_sources(kwargs))
        if any(mount.get("VolumeOptions") for mount in mounts_of(kwargs)):  # its driver may mount any folder
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


def _not_among(rule: str, patterns: Sequence[str], asked: Iterable[str]) -> Iterator[Violation]:
    for item in asked:
        if not any(fnmatchcase(item, pattern) for pattern in patterns):
            yield Violation(rule, f"{item!r} is not among {', '.join(patterns) or 'the allowed: none is'}")


def _present(kwargs: Mapping[str, Any], name: str) -> list[Any]:
    return [kwargs[name]] if kwargs.get(name) not in (None, "") else []
