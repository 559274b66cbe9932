"""Shared by all tests: makes the helper modules beside this file importable."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dockerd import Dockerd, missing, open_dockerd

# A shell that runs us in the background has SIGINT ignored, and every process that a test starts would
# inherit that: none of them could be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str | None:
    """Says once what all tests of containers would say one by one."""
    why = missing()
    return f"tests of containers are left out: {why}" if why else None


@pytest.fixture(scope="session")
def dockerd() -> Iterator[Dockerd]:
    """A Docker engine of this session's own."""
    if why := missing():
        pytest.skip(why)
    with open_dockerd() as engine:
        yield engine
