"""Runs go to the node on which they start warm, and operators have its warm server made anew."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from end_to_end.support.stage import SUCCESS, is_alive
from harness.dagster_site import ASSET_JOB, LAUNCH_IN_THE_CALLER
from harness.deployment import Deployment, open_deployment
from harness.waiting import wait_until

from runyard.v1 import fleet_pb2, run_pb2

SMALL, LARGE = "small", "large"


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """Two nodes, the smaller of which is the one that bin-packing fills first."""
    with open_deployment(settings=LAUNCH_IN_THE_CALLER) as opened:
        opened.cluster.start_agent(SMALL, "main", slots=2)
        opened.cluster.start_agent(LARGE, "main", slots=8)
        yield opened


def make_orders(deployment: Deployment, **tags: str) -> run_pb2.Run:
    """Materialises an asset, and returns its run when that is over."""
    site, cluster = deployment.site, deployment.cluster
    tags = {f"runyard/{name}": value for name, value in tags.items()}
    run_id = site.submit(site.create_run(ASSET_JOB, assets=["orders"], tags=tags))
    wait_until(lambda: site.status(run_id) == SUCCESS, "the asset is made", timeout=90.0)
    wait_until(lambda: cluster.run(run_id).phase == run_pb2.PHASE_FINISHED, "Runyard sees its end")
    return cluster.run(run_id)


def ready_server(deployment: Deployment, *, not_pid: int = 0) -> fleet_pb2.WarmServer:
    """The only warm server of the large node, as soon as the coordinator knows that it forks."""

    def found() -> fleet_pb2.WarmServer | None:
        servers = deployment.cluster.client.get_node(LARGE).warm_servers
        ready = [each for each in servers if each.state == fleet_pb2.WARM_SERVER_STATE_READY]
        return ready[0] if ready and ready[0].pid != not_pid else None

    return wait_until(found, lambda: str(deployment.cluster.client.get_node(LARGE)), timeout=90.0)


def runyard(deployment: Deployment, *arguments: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "runyard.cli.main", "--address", deployment.cluster.address]
    environment = {**os.environ, "COLUMNS": "250"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    return done.stdout


def test_a_run_goes_where_another_has_left_a_warm_server_and_is_a_fork_of_it(deployment: Deployment) -> None:
    make_orders(deployment, node=LARGE)
    before = ready_server(deployment)
    run = make_orders(deployment)
    (location,) = before.code_locations
    assert run.location == location
    assert (run.node, run.placed_because) == (
        LARGE,
        f"best of 2 free nodes by bin-packing; warm for {location}",
    )
    assert "placed because  best of 2 free nodes by bin-packing; warm for" in runyard(
        deployment, "run", "show", run.run_id
    )
    wait_until(lambda: ready_server(deployment).all_forks == 1, lambda: str(ready_server(deployment)))
    assert ready_server(deployment).pid == before.pid


def test_an_operator_sees_the_warm_server_and_has_it_made_anew(deployment: Deployment) -> None:
    before = ready_server(deployment)
    for command in (("show", LARGE), ("warm", "list")):
        (line,) = [line for line in runyard(deployment, "node", *command).splitlines() if before.name in line]
        assert {LARGE, "ready", "framework", before.code_locations[0], str(before.pid)} <= set(line.split())

    told = runyard(deployment, "node", "warm", "refresh", LARGE)
    assert told == f"node {LARGE} was asked to replace 1 warm server\n"
    after = ready_server(deployment, not_pid=before.pid)
    assert after.name == before.name
    wait_until(lambda: not is_alive(before.pid), "the former process has ended")
    assert make_orders(deployment).node == LARGE
    assert runyard(deployment, "node", "warm", "list", SMALL) == "no warm servers\n"
