"""Stopping a run ends every process of it, by whatever means its worker was started.

`RUNYARD_TEST_STOPS=50` stops 50 runs in each way.
"""

import json
import os
from collections.abc import Iterator
from unittest import mock

import psutil
import pytest
from end_to_end.support.drivers import DRIVER
from end_to_end.support.stage import CANCELED, Stage, open_stage
from harness.dagster_site import LAUNCH_IN_THE_CALLER
from harness.waiting import wait_until

from runyard.v1 import fleet_pb2, run_pb2

STOPS = int(os.environ.get("RUNYARD_TEST_STOPS", "3"))
"""How many runs are stopped in each way."""

AT_ONCE = 4
"""Runs that are live at a time."""

GRACE = "5"
"""Seconds: enough for Dagster's own part on a busy machine."""

MODES = {"container": "off"} if DRIVER == "docker" else {"cold": "off", "warm": "framework"}
"""Ways of starting a worker, and what is imported ahead for it; each has a node in a cluster of its name."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("project"), LAUNCH_IN_THE_CALLER) as stage:
        for mode, ahead in MODES.items():
            with mock.patch.dict(os.environ, RUNYARD_AGENT_WARM=json.dumps({"mode": ahead})):
                stage.cluster.start_agent(mode, mode, slots=AT_ONCE)
        yield stage


def processes_of(run_id: str) -> set[psutil.Process]:
    """All live processes on this machine whose command or environment names the run."""
    return {process for process in psutil.process_iter() if _names(process, run_id)}


def _names(process: psutil.Process, text: str) -> bool:
    try:
        words = (*process.cmdline(), *process.environ().values())
    except psutil.Error:  # it is gone, or a zombie
        return False
    return any(text in word for word in words)


def family_of(stage: Stage, run_id: str) -> set[psutil.Process]:
    """The worker, its descendants, and whatever else names the run."""
    worker = stage.worker(run_id)
    ancestors = [psutil.Process(pid) for pid in (worker.pid, worker.shim_pid) if pid]
    children = {child for each in ancestors for child in each.children(recursive=True)}
    return {ancestors[0]} | children | processes_of(run_id)


def alive(processes: set[psutil.Process]) -> list[str]:
    """Those that still run, for people."""
    return [str(process) for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def forks(stage: Stage, node: str) -> int:
    """How many workers of a node were forks of a warm server."""
    return sum(server.all_forks for server in stage.cluster.client.get_node(node).warm_servers)


def warm_up(stage: Stage, node: str) -> None:
    """Returns when the next runs of the node will start from a warm server."""
    run_id = stage.launch("succeed", cluster=node)
    stage.wait_for_end(run_id, timeout=60)

    def is_ready() -> bool:
        servers = stage.cluster.client.get_node(node).warm_servers
        return any(server.state == fleet_pb2.WARM_SERVER_STATE_READY for server in servers)

    wait_until(is_ready, lambda: str(stage.cluster.client.get_node(node)), timeout=90)


def survivors_of_stops(stage: Stage, cluster: str, stops: int) -> list[str]:
    """Stops runs of several processes at work, a few at a time.

    Returns:
        What was alive when Runyard said that the run's worker is over: a line for each process.
    """
    survivors: list[str] = []
    for first in range(0, stops, AT_ONCE):
        run_ids = [
            stage.launch("scatter", cluster=cluster, grace=GRACE)
            for _ in range(first, min(stops, first + AT_ONCE))
        ]
        for run_id in run_ids:
            stage.wait_until_busy(run_id)
        families = {run_id: family_of(stage, run_id) for run_id in run_ids}
        for run_id, family in families.items():
            assert len(processes_of(f"scattered-{run_id}")) >= 3, family
            assert len(family) >= 5, family  # with the worker and the child that runs its step
            assert stage.terminate(run_id)
        for run_id, family in families.items():
            assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_STOPPED
            survivors += alive(family | processes_of(run_id))
            stage.wait_for_status(run_id, CANCELED)
    return survivors


@pytest.mark.timeout(120 + 30 * STOPS)
@pytest.mark.parametrize("mode", MODES)
def test_stopping_a_run_of_many_processes_leaves_none_of_them_alive(stage: Stage, mode: str) -> None:
    if MODES[mode] != "off":
        warm_up(stage, mode)
    before = forks(stage, mode)
    assert survivors_of_stops(stage, mode, STOPS) == []
    if MODES[mode] != "off":
        wait_until(lambda: forks(stage, mode) - before == STOPS, lambda: f"{forks(stage, mode)} forks")
