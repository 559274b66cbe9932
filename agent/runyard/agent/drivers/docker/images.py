"""Getting the image: by the pull policy, with the owner's credentials, and with news for people meanwhile."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.utils import parse_repository_tag

from runyard.agent.drivers.docker.causes import DISK_FULL, IMAGE_NOT_FOUND, PULL_DENIED
from runyard.agent.drivers.docker.engine import Engine, NoSuchImage
from runyard.agent.drivers.docker.plan import ContainerPlan
from runyard.agent.drivers.docker.settings import DockerSettings, Registry

NEWS_EVERY = 5.0
"""Seconds between two lines of news on a pull."""

_DENIED = ("denied", "unauthorized", "authentication required", "no basic auth", "forbidden")
_UNKNOWN = ("not found", "manifest unknown", "name unknown", "does not exist", "invalid reference format")
_DISK_FULL = ("no space left",)


class PullFailed(Exception):
    """The image cannot be had; the message says why, and another try would change nothing.

    Args:
        message: One sentence for people.
        why: One word for programs, see `causes`.
    """

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class PullInterrupted(Exception):
    """The image cannot be had at the moment."""


@dataclass
class Progress:
    """What is known of a pull: layers done, of layers known."""

    done: int = 0
    known: int = 0
    downloaded: int = 0

    def __str__(self) -> str:
        return f"{self.done} of {self.known} layers, {self.downloaded / 2**20:.0f} MiB"


async def ensure_image(
    engine: Engine, settings: DockerSettings, plan: ContainerPlan, tell: Callable[[str], None]
) -> None:
    """Returns when the engine has the image.

    Args:
        engine: The engine.
        settings: With the credentials.
        plan: With the image and the pull policy.
        tell: Takes a line of news; called from another thread.

    Raises:
        PullFailed, PullInterrupted: The registry, or the pull policy, says no; or not now.
        EngineError: The engine itself fails.
    """
    if plan.pull != "always" and await _has(engine, plan.image):
        return
    if plan.pull == "never":
        raise PullFailed(not_there(engine, plan.image), IMAGE_NOT_FOUND)
    began = time.monotonic()
    tell(f"pulling {plan.image}")
    registry = settings.registries.get(registry_of(plan.image))
    await engine.pull(lambda client: _pull(client, plan.image, registry, tell), settings.pull_timeout)
    tell(f"pulled {plan.image} in {time.monotonic() - began:.1f} s")


def not_there(engine: Engine, image: str) -> str:
    """Says that the engine has not the image, and may not pull it."""
    return f"image not found: {image} is not in the engine at {engine.host}, and docker.pull is never"


def registry_of(image: str) -> str:
    """The registry that an image's name begins with, or Docker's own."""
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else "docker.io"


async def _has(engine: Engine, image: str) -> bool:
    try:
        await engine.call(lambda client: client.images.get(image))
    except NoSuchImage:
        return False
    return True


def _pull(
    client: docker.DockerClient, image: str, registry: Registry | None, tell: Callable[[str], None]
) -> None:
    repository, tag = parse_repository_tag(image)
    credentials = None
    if registry is not None:
        try:
            credentials = {"username": registry.username, "password": registry.read_password()}
        except OSError as error:
            message = f"pull denied: the password for {image} cannot be read: {error}"
            raise PullFailed(message, PULL_DENIED) from error
    try:
        news = client.api.pull(
            repository, tag=tag or "latest", stream=True, decode=True, auth_config=credentials
        )
        _follow(image, news, tell)
    except docker.errors.APIError as error:
        raise _failure(image, str(error.explanation or error)) from error


def _follow(image: str, news: Iterator[Mapping[str, Any]], tell: Callable[[str], None]) -> None:
    layers: dict[str, tuple[bool, int]] = {}
    told_at = time.monotonic()
    for line in news:
        if "error" in line:
            raise _failure(image, str(line["error"]))
        if layer := line.get("id"):
            _, size = layers.get(layer, (False, 0))
            detail = line.get("progressDetail") or {}
            is_done = line.get("status") in ("Pull complete", "Already exists")
            if line.get("status") == "Downloading":
                size = max(size, detail.get("current") or 0)
            layers[layer] = (is_done, size)
        if time.monotonic() - told_at >= NEWS_EVERY:
            told_at = time.monotonic()
            done = sum(is_done for is_done, _ in layers.values())
            tell(f"pulling {image}: {Progress(done, len(layers), sum(size for _, size in layers.values()))}")


def _failure(image: str, said: str) -> PullFailed | PullInterrupted:
    lower = said.lower()
    # "pull access denied" is said of what does not exist too, and both have the same remedy.
    if any(words in lower for words in _DENIED):
        return PullFailed(
            f"pull denied: {image}: {said}; check its name, and {registry_of(image)!r} in docker.registries",
            PULL_DENIED,
        )
    if any(words in lower for words in _UNKNOWN):
        return PullFailed(f"image not found: {image}: {said}", IMAGE_NOT_FOUND)
    if any(words in lower for words in _DISK_FULL):
        return PullFailed(f"image does not fit: {image}: {said}", DISK_FULL)
    return PullInterrupted(f"cannot pull {image}: {said}")
