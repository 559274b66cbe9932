"""A coordinator with an authority, and nodes that join it."""

from collections.abc import Iterator

import pytest
from agent.security.secured import SecuredPlant
from harness.services import open_yard


@pytest.fixture
def plant() -> Iterator[SecuredPlant]:
    """Each test has its own; nothing of it is left."""
    with open_yard() as yard:
        made = SecuredPlant(yard)
        yield made
        made.close()
