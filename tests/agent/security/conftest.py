"""A coordinator with an authority, and nodes that join it."""

from collections.abc import Iterator

import pytest
from agent.security.secured import SecuredPlant
from harness.services import open_cluster


@pytest.fixture
def plant() -> Iterator[SecuredPlant]:
    """Each test has its own; nothing of it is left."""
    with open_cluster() as cluster:
        made = SecuredPlant(cluster)
        yield made
        made.close()
