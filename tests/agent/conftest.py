"""Shared by the tests of the agent's node side: state directories, and nodes that are cleared away."""

import os
import subprocess
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from agent.docker_side import DockerNode
from agent.node_side import Node, kill_everything
from agent.stub_coordinator import Agent, StubCoordinator
from harness.dockerd import Dockerd
from harness.waiting import await_until

from runyard.agent.supervisor.rundir import RunDirectories


@pytest.fixture
def directories(tmp_path: Path) -> Iterator[RunDirectories]:
    """The attempts of a node that has no driver."""
    found = RunDirectories(tmp_path / "state")
    yield found
    kill_everything(found)


@pytest.fixture
async def node(directories: RunDirectories) -> AsyncIterator[Node]:
    """A node with a process driver."""
    made = Node(directories)
    await made.driver.open()
    yield made
    await made.driver.close()


def calls_to_engines() -> list[threading.Thread]:
    """Those that are not over; see `runyard.agent.drivers.docker.engine.threads`."""
    return [thread for thread in threading.enumerate() if thread.name == "docker"]


@pytest.fixture
async def docker_node(directories: RunDirectories, dockerd: Dockerd) -> AsyncIterator[DockerNode]:
    """A node with a Docker driver. Its containers are gone in the end, and so are its calls to the engine.

    A late one would be meant for a container that has the same name in the next test.
    """
    made = DockerNode(directories, dockerd)
    await made.driver.open()
    yield made
    await made.driver.close()
    dockerd.remove_containers()
    await await_until(lambda: not calls_to_engines(), calls_to_engines)


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A cgroup with 64 MiB of memory: a process joins by writing its PID to the file `cgroup.procs` in it."""
    version_1 = Path("/sys/fs/cgroup/memory")
    place = (version_1 if version_1.exists() else version_1.parent) / f"runyard-test-{uuid.uuid4()}"
    if os.geteuid() != 0:
        pytest.skip("making a cgroup needs root; run these tests in a container as root")
    place.mkdir()
    limit = "memory.limit_in_bytes" if version_1.exists() else "memory.max"
    (place / limit).write_text(str(64 << 20))
    yield place
    place.rmdir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB, mounted for the test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root; run these tests in a container as root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    yield place
    kill_everything(RunDirectories(place / "state"))
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
async def coordinator() -> AsyncIterator[StubCoordinator]:
    """A coordinator that the test controls."""
    with tempfile.TemporaryDirectory(prefix="ry-") as sockets:  # pytest's own folders are too long for one
        async with StubCoordinator(Path(sockets)) as made:
            yield made


@pytest.fixture
def new_agent(directories: RunDirectories, coordinator: StubCoordinator) -> Iterator[Callable[..., Agent]]:
    """Makes agents over the same state directory, one at a time; takes further settings by name."""
    made: list[Agent] = []

    def make(**settings: object) -> Agent:
        made.append(Agent(directories.state, coordinator.address, **settings))
        return made[-1]

    yield make
    for agent in made:
        agent.close()
