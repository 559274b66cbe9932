"""Getting the image: by the pull policy, with the owner's credentials, with progress reports meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import docker
from docker.utils import parse_repository_tag

from runyard.agent.config.docker import DockerSettings, Registry
from runyard.agent.drivers.docker.causes import DISK_FULL, IMAGE_NOT_FOUND, PULL_DENIED
from runyard.agent.drivers.docker.engine.client import Engine, NoSuchImage
from runyard.agent.drivers.docker.engine.progress import Progress
from runyard.agent.drivers.docker.plan.plan import ContainerPlan

REPORT_AFTER = 3.0
"""Seconds that a pull may take before its progress is reported."""

REPORT_EVERY = 10.0
"""Seconds between two progress reports of a pull. Each becomes a line in the event log of the run."""

Report = Callable[[str], Awaitable[None]]

_DENIED = ("denied", "unauthorized", "authentication required", "no basic auth", "forbidden")
_UNKNOWN = ("not found", "manifest unknown", "name unknown", "does not exist", "invalid reference format")
_DISK_FULL = ("no space left",)


class PullFailed(Exception):
    """The image cannot be had; the message says why, and another try would change nothing.

    Args:
        message: One sentence for people.
        reason_code: One word for programs, see `causes`.
    """

    def __init__(self, message: str, reason_code: str) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class PullInterrupted(Exception):
    """The image cannot be had at the moment."""


async def ensure_image(
    engine: Engine, settings: DockerSettings, plan: ContainerPlan, note: Report, report: Report
) -> None:
    """Return when the engine has the image.

    Args:
        engine: The engine.
        settings: With the credentials.
        plan: With the image and the pull policy.
        note: Takes a line for the run's own log.
        report: Takes a line for all who wait for the run; few of them, and none if the pull is short.

    Raises:
        PullFailed, PullInterrupted: The registry, or the pull policy, says no; or not now.
        EngineError: The engine itself fails.
    """
    if plan.pull != "always" and await _has(engine, plan.image):
        return
    if plan.pull == "never":
        raise PullFailed(not_there(engine, plan.image), IMAGE_NOT_FOUND)
    began = time.monotonic()
    await note(f"pulling image {plan.image}")
    registry = settings.registries.get(registry_of(plan.image))
    progress = Progress(plan.image)
    reporting = asyncio.create_task(_keep_reporting(progress, report))
    try:
        await engine.pull(lambda client: _pull(client, plan.image, registry, progress), settings.pull_timeout)
    finally:
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
    took = time.monotonic() - began
    await (note if took < REPORT_AFTER else report)(f"pulled image {plan.image} in {took:.1f} s")


async def _keep_reporting(progress: Progress, report: Report) -> None:
    await asyncio.sleep(REPORT_AFTER)
    while True:
        await report(str(progress))
        await asyncio.sleep(REPORT_EVERY)


def not_there(engine: Engine, image: str) -> str:
    """The message that the engine lacks the image and may not pull it."""
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


def _pull(client: docker.DockerClient, image: str, registry: Registry | None, progress: Progress) -> None:
    repository, tag = parse_repository_tag(image)
    credentials = None
    if registry is not None:
        try:
            credentials = {"username": registry.username, "password": registry.read_password()}
        except OSError as error:
            message = f"pull denied: the password for {image} cannot be read: {error}"
            raise PullFailed(message, PULL_DENIED) from error
    try:
        for line in client.api.pull(
            repository, tag=tag or "latest", stream=True, decode=True, auth_config=credentials
        ):
            if "error" in line:
                raise _failure(image, str(line["error"]))
            progress.take(line)
    except docker.errors.APIError as error:
        raise _failure(image, str(error.explanation or error)) from error


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
