"""Shared by the tests of the client: a fake coordinator (see `fake_coordinator.py`) on a loopback port."""

from collections.abc import Iterator
from typing import cast

import pytest
from client.blocking_async import BlockingAsyncClient, ClientFactory
from client.fake_coordinator import FakeCoordinator

from runyard.client import Client


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator().start()
    yield fake
    fake.stop()


@pytest.fixture(params=[Client, BlockingAsyncClient], ids=["blocking", "asyncio"])
def new_client(request: pytest.FixtureRequest) -> ClientFactory:
    """Makes clients: the test runs once with the blocking and once with the asyncio one."""
    return cast(ClientFactory, request.param)


@pytest.fixture
def client(coordinator: FakeCoordinator, new_client: ClientFactory) -> Iterator[Client]:
    with new_client(coordinator.address) as opened:
        yield opened
