"""The registries of images that the tests' engine reaches."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.dockerd import Dockerd

PORT, CLOSED_PORT = 5000, 5001

OPEN = f"127.0.0.1:{PORT}"
"""Gives its images to everybody; see `image_registry.py`."""

CLOSED = f"127.0.0.1:{CLOSED_PORT}"
"""Wants the name `puller` and the password `hunter2`."""

AWAY = "127.0.0.1:5999"
"""Nobody listens there."""


@contextmanager
def serving(engine: Dockerd) -> Iterator[None]:
    """Has both at work, and an engine that has pulled nothing from them."""
    with engine.neighbour("image_registry.py", str(PORT), str(CLOSED_PORT)):
        yield
    with engine.client() as client:
        engine.remove_containers()
        for tag in [tag for image in client.images.list() for tag in image.tags]:
            if tag.startswith((OPEN, CLOSED)):
                client.images.remove(tag, force=True)
