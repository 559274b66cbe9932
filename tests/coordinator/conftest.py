"""Shared by the tests of the coordinator: one that serves, and one with an agent in session."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from coordinator.serving import Serving, StubAgent, serving


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[Serving]:
    """A coordinator that no node has joined yet."""
    async with serving(tmp_path / "state") as client:
        yield client


@pytest.fixture
async def agent(coordinator: Serving) -> StubAgent:
    """Node `node-a` with eight slots, in session with `coordinator`."""
    return await coordinator.join()
