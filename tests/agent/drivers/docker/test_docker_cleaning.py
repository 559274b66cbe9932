"""Containers go when they are old or many, and never before the coordinator has their outcome."""

import os
import time

import pytest
from agent.docker_side import DockerNode, shell
from harness.dockerd import Dockerd

from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker.plan.labels import container_name
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

KEYS = [AttemptKey(f"run-{number}", 0) for number in range(3)]


def settle(directory: RunDirectory, seconds_ago: float) -> None:
    """As if the coordinator had had the outcome so long ago."""
    directory.acknowledge()
    at = time.time() - seconds_ago
    os.utime(directory.path / "acknowledged", (at, at))


async def run_all(node: DockerNode) -> list[RunDirectory]:
    """Three containers that are over."""
    directories = [await node.start(shell("exit 0"), key) for key in KEYS]
    for key in KEYS:
        await node.outcome(key)
    return directories


@pytest.mark.parametrize(
    ("limits", "removed"),
    [
        ({"keep_containers": 2, "keep_for": 1e6}, [0]),
        ({"keep_containers": 9, "keep_for": 150.0}, [0, 1]),
        ({"keep_containers": 9, "keep_for": 1e6}, []),
        ({"keep_containers": 0, "keep_for": 1e6}, [0, 1, 2]),
    ],
)
async def test_settled_containers_go_by_number_and_by_age(
    directories: RunDirectories, dockerd: Dockerd, limits: dict[str, float], removed: list[int]
) -> None:
    node = DockerNode(directories, dockerd, **limits)
    await node.driver.open()
    try:
        for number, directory in enumerate(await run_all(node)):
            settle(directory, seconds_ago=300 - 100 * number)
        expected = {container_name(KEYS[number]) for number in removed}
        assert set(await node.driver.cleaner.clean()) == expected
        with dockerd.client() as client:
            left = {container.name for container in client.containers.list(all=True)}
        assert left == {container_name(key) for key in KEYS} - expected
    finally:
        await node.driver.close()
        dockerd.remove_containers()


async def test_a_container_whose_outcome_the_coordinator_has_not_stays(
    directories: RunDirectories, dockerd: Dockerd
) -> None:
    node = DockerNode(directories, dockerd, keep_containers=0, keep_for=0.0)
    await node.driver.open()
    try:
        first, *_ = await run_all(node)
        settle(first, seconds_ago=10)
        assert await node.driver.cleaner.clean() == [container_name(KEYS[0])]
        assert await node.driver.cleaner.clean() == []
    finally:
        await node.driver.close()
        dockerd.remove_containers()


async def test_containers_of_others_and_those_that_run_stay(
    directories: RunDirectories, dockerd: Dockerd
) -> None:
    node = DockerNode(directories, dockerd, keep_containers=0, keep_for=0.0)
    await node.driver.open()
    try:
        live = await node.start(shell("sleep 600"), KEYS[0])
        await node.running(KEYS[0])
        settle(live, seconds_ago=10)  # cannot be; but a live container is never in the way
        labels = {"runyard.run": "run-x", "runyard.attempt": "0", "runyard.agent": "another"}
        with dockerd.client() as client:
            client.containers.create("runyard-test/empty:1", "/x", labels=labels)
            client.containers.create("runyard-test/empty:1", "/x")
        assert await node.driver.cleaner.clean() == []
    finally:
        await node.driver.close()
        dockerd.remove_containers()
