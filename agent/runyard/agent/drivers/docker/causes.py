"""One word for each reason why a container did not start; docs/isolation.md and docs/docker.md list them."""

import re
from typing import Final

IMAGE_NOT_FOUND: Final = "image_not_found"
"""No such image in the registry; or none in the engine, and pulling is forbidden."""

PULL_DENIED: Final = "pull_denied"
"""The registry wants other credentials."""

IMAGE_UNAVAILABLE: Final = "image_unavailable"
"""The registry gave no answer, or none that made sense, for as long as it was tried."""

ENGINE_UNAVAILABLE: Final = "engine_unavailable"
"""The engine gave no answer for as long as it was tried."""

NETWORK_MISSING: Final = "network_missing"
"""The engine has no network of that name."""

EXECUTABLE_MISSING: Final = "executable_missing"
"""The image has not the interpreter, or cannot execute it."""

DISK_FULL: Final = "disk_full"
"""The engine's disk has no room for the image or the container."""

_SAID: Final = (
    (re.compile(r"could not select device driver|unknown device|nvidia-container-cli"), "gpu_unavailable"),
    (re.compile(r"no space left"), DISK_FULL),
    (re.compile(r"network .*not found"), NETWORK_MISSING),
    (re.compile(r"chdir to cwd|mkdir .*working dir"), "working_directory_missing"),
    (re.compile(r"executable file not found|exec: .*(no such file|permission denied)"), EXECUTABLE_MISSING),
)
"""What engines say of a container that they cannot make or start, from 20.10 on."""


def word_for(said: str) -> str:
    """The word for what an engine says of a container that it cannot make or start; empty for none."""
    lower = said.lower()
    return next((word for pattern, word in _SAID if pattern.search(lower)), "")
