"""Whichever way a run goes, it leaves the same behind whether it started cold or from a warm server."""

import asyncio
import difflib
from pathlib import Path

import pytest
from agent.dagster_project import CASES, History, Project, as_text
from agent.node_side import Node, kill_everything
from harness.waiting import await_until

from runyard.agent.config.warm import WarmMode, WarmSettings
from runyard.agent.supervisor.rundir import RunDirectories

Histories = dict[str, History]


async def play_all(folder: Path, mode: WarmMode) -> Histories:
    """What is left of every case, executed on a node in this mode."""
    directories = RunDirectories(folder / "state")
    node, project = Node(directories, WarmSettings(mode=mode)), Project(folder)
    await node.driver.open()
    try:
        if mode != "off":
            await warm_up(node, project)
        histories = {name: await project.play(node, case) for name, case in CASES.items()}
        if mode != "off":
            reasons = [server["last_cold_reason"] for server in node.driver.warm_servers.snapshot()]
            forks = sum(server["all_forks"] for server in node.driver.warm_servers.snapshot())
            assert forks >= len(CASES) - 1, reasons  # the code location that cannot be loaded has no server
        return histories
    finally:
        await node.driver.close()
        kill_everything(directories)
        project.instance.dispose()


async def warm_up(node: Node, project: Project) -> None:
    """Returns when runs of the project are forks."""
    await project.play(node, CASES["good"])
    servers = node.driver.warm_servers
    await await_until(lambda: servers.snapshot()[0]["state"] == "ready", servers.snapshot)


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Histories:
    return asyncio.run(play_all(tmp_path_factory.mktemp("off"), "off"))


@pytest.fixture(scope="module", params=["framework", "location"])
def warm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Histories:
    return asyncio.run(play_all(tmp_path_factory.mktemp(request.param), request.param))


@pytest.mark.parametrize("case", CASES)
def test_a_warm_start_leaves_the_same_behind_as_a_cold_one(
    cold: Histories, warm: Histories, case: str
) -> None:
    before, now = as_text(cold[case]).splitlines(), as_text(warm[case]).splitlines()
    assert now == before, "\n".join(difflib.unified_diff(before, now, "cold", "warm", lineterm=""))


def test_the_cases_go_the_ways_that_they_are_meant_to_go(cold: Histories) -> None:
    found = {name: (history.code, history.signal, history.status) for name, history in cold.items()}
    assert found == {
        "good": (0, None, "SUCCESS"),
        "tells": (0, None, "SUCCESS"),
        "fails": (0, None, "FAILURE"),
        "fails and shows": (1, None, "FAILURE"),
        "leaves": (3, None, "STARTED"),
        "threaded": (0, None, "SUCCESS"),
        "pools": (0, None, "SUCCESS"),
        "spawned steps": (0, None, "SUCCESS"),
        "forkserver steps": (0, None, "SUCCESS"),
        "a spawned step fails": (0, None, "FAILURE"),
        "assets": (0, None, "SUCCESS"),
        "resumed": (0, None, "SUCCESS"),
        "code cannot be loaded": (0, None, "FAILURE"),
        "run is unknown": (1, None, "STARTING"),
        "canceled before": (0, None, "CANCELED"),
        "canceling before": (0, None, "FAILURE"),
        "canceled at work": (0, None, "CANCELED"),
        "interrupted at work": (0, None, "FAILURE"),
        "terminated at work": (0, None, "FAILURE"),
        "killed at work": (None, 9, "STARTED"),
    }
    assert cold["threaded"].is_flag_up  # by a thread that is waited for
    assert "argv ['dagster', 'api', 'execute_run']" in cold["good"].output
