"""Shared by the tests of the launcher: a coordinator to talk to, and Dagster deployments that use it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from launcher.placing_coordinator import PlacingCoordinator
from launcher.shop import Shop, make_template, open_shop

OpenShop = Callable[..., Shop]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template") / "home")


@pytest.fixture
def coordinator() -> Iterator[PlacingCoordinator]:
    fake = PlacingCoordinator()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def new_shop(template: Path, tmp_path: Path, coordinator: PlacingCoordinator) -> Iterator[OpenShop]:
    """Opens deployments that use `coordinator`; without a reporter, unless the test asks for one."""
    with ExitStack() as opened:

        def open_one(
            launcher: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
        ) -> Shop:
            home = tmp_path / f"home-{len(list(tmp_path.iterdir()))}"
            config = {"address": coordinator.address, "reporter": False, **(launcher or {})}
            return opened.enter_context(open_shop(template, home, config, settings))

        yield open_one


@pytest.fixture
def shop(new_shop: OpenShop) -> Shop:
    return new_shop()
