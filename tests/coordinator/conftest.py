"""Shared by the tests of the coordinator: one that serves, and one with an agent in session."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from coordinator.serving import Serving, StubAgent, serving
from coordinator.store.small_disk import mounted


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[Serving]:
    """A coordinator that no node has joined yet."""
    async with serving(tmp_path / "state") as client:
        yield client


@pytest.fixture
async def agent(coordinator: Serving) -> StubAgent:
    """Node `node-a` with eight slots, in session with `coordinator`."""
    return await coordinator.join()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    with mounted(tmp_path / "disk", "size=2m") as disk:
        yield disk
