"""The driver under test: `RUNYARD_TEST_DRIVER=docker` runs all these tests with containers."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import yaml
from agent.docker_registries import serving
from harness.dockerd import HOST, IMAGE, missing, open_dockerd

ROOT = Path(__file__).parents[3]

DRIVER = os.environ.get("RUNYARD_TEST_DRIVER", "process")
"""`process` or `docker`."""

processes_only = pytest.mark.skipif(DRIVER != "process", reason="about processes only")
"""Marks what containers do not have, such as a shim."""

containers_only = pytest.mark.skipif(DRIVER != "docker", reason="about containers only")
"""Marks what processes do not have, such as a limit of their own."""


@contextmanager
def driver_under_test(folder: Path) -> Iterator[Path | None]:
    """Readies what the driver needs, for all agents that are started in the block.

    Args:
        folder: Where files may be put.

    Yields:
        The coordinator's routing file that makes it the driver of all runs; None if none is needed.
    """
    if DRIVER == "process":
        yield None
        return
    if why := missing():
        pytest.skip(why)
    with open_dockerd() as engine, serving(engine):
        # Deployments and their projects are in temporary folders, which containers see under the same names.
        shared = [*HOST, f"{ROOT}:{ROOT}:ro", "/tmp:/tmp"]
        settings = {"host": engine.address, "image": IMAGE, "pull": "if-not-present", "volumes": shared}
        routing = folder / "routing.yaml"
        routing.write_text(yaml.safe_dump({"defaults": {"driver": "docker"}}))
        with mock.patch.dict(os.environ, RUNYARD_AGENT_DOCKER=json.dumps(settings)):
            yield routing
