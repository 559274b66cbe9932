"""Shared by all tests: makes the helper modules beside this file importable, and the example deployment."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from harness.dockerd import Dockerd, missing, open_dockerd
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

LONGEST_FIRST = (
    "agent/supervisor/test_warm_conformance",
    "simulation",
    "end_to_end",
    "chaos",
    "agent/security/test_renewal",
    "security/test_secure_cluster",
    "agent/drivers/docker/test_docker_driver_crashes",
    "agent/drivers/test_warm_node",
    "cli/test_dev",
    "compatibility/test_old_json_output",
    "agent",
)
"""What begins first where workers share the tests by files: the last to be done must be short ones."""

# A shell that runs us in the background has SIGINT ignored, and every process that a test starts would
# inherit that: none of them could be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str | None:
    """Says once what all tests of containers would say one by one."""
    why = missing()
    return f"tests of containers are left out: {why}" if why else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the longest files first, if workers share the tests; alone, the order is that of the folders."""
    if hasattr(config, "workerinput"):
        items.sort(key=_place_in_line)


def _place_in_line(item: pytest.Item) -> int:
    name = str(item.path.relative_to(Path(__file__).parent))
    places = (place for place, start in enumerate(LONGEST_FIRST) if name.startswith(start))
    return next(places, len(LONGEST_FIRST))


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Undoes what entry points do to their process for good, since here others come after them."""
    before = {name: os.environ.get(name) for name in ("GRPC_TRACE", "GRPC_VERBOSITY")}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def dockerd() -> Iterator[Dockerd]:
    """A Docker engine of this session's own."""
    if why := missing():
        pytest.skip(why)
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(open_dockerd())
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            # As in a container that may not make namespaces or mounts.
            pytest.skip(f"no Docker engine: it does not start here ({' '.join(str(error).split())[-300:]})")
        yield engine
