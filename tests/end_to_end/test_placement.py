"""An asset that is materialised ad hoc goes where its op tags say, and everybody is told why."""

import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
from end_to_end.support.stage import SUCCESS
from harness.dagster_site import ASSET_JOB, LAUNCH_IN_THE_CALLER
from harness.deployment import Deployment, open_deployment
from harness.waiting import wait_until

from runyard.v1 import run_pb2

FAST, PLAIN = "fast", "plain"


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """A node with a fast disk and one slot, and a plain one."""
    with open_deployment(settings=LAUNCH_IN_THE_CALLER) as opened:
        opened.cluster.start_agent(FAST, "main", slots=1, labels=["disk=ssd"])
        opened.cluster.start_agent(PLAIN, "main")
        yield opened


def engine_events(deployment: Deployment, run_id: str) -> list[str]:
    entries = deployment.site.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    return [entry.message for entry in entries]


def explain(deployment: Deployment, run_id: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "runyard.cli.main", "--address", deployment.cluster.address]
    done = subprocess.run(
        [*command, "run", "explain", run_id], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_an_ad_hoc_asset_waits_for_the_node_of_its_op_tags_and_says_why(deployment: Deployment) -> None:
    site, cluster = deployment.site, deployment.cluster
    holding = site.submit(site.create_run("keep_open", tags={"runyard/node": FAST}))
    wait_until(lambda: site.status(holding) == dg.DagsterRunStatus.STARTED, "the fast node is taken")

    run = site.create_run(ASSET_JOB, assets=["forecast"])
    assert not [tag for tag in run.tags if tag.startswith("runyard/")]
    run_id = site.submit(run)
    assert engine_events(deployment, run_id)[-1] == (
        "Runyard accepted the run as attempt 0, waiting: 0/2 nodes available: "
        "1 did not match label disk=ssd, 1 without a free slot"
    )
    told = explain(deployment, run_id)
    assert told.startswith(
        f"Run {run_id} is waiting: 0/2 nodes available: "
        "1 did not match label disk=ssd, 1 without a free slot\n"
    )
    assert "waits for  a slot on one node" in told
    assert "labels.disk       disk=ssd  op forecast" in told

    site.instance.run_coordinator.cancel_run(holding)
    wait_until(lambda: site.status(run_id) == SUCCESS, lambda: str(engine_events(deployment, run_id)))
    assert cluster.run(run_id).node == FAST
    (started,) = [text for text in engine_events(deployment, run_id) if text.startswith("Worker started")]
    assert f"on node {FAST}" in started
    assert "the only free node" in started
    wait_until(lambda: cluster.run(run_id).phase == run_pb2.PHASE_FINISHED, "Runyard sees its end")
    assert "is over: exited with code 0; it was on node fast" in explain(deployment, run_id)


def test_an_ad_hoc_asset_that_asks_for_nothing_goes_anywhere(deployment: Deployment) -> None:
    run_id = deployment.site.submit(deployment.site.create_run(ASSET_JOB, assets=["orders"]))
    wait_until(lambda: deployment.site.status(run_id) == SUCCESS, "the asset is made")
    assert deployment.cluster.run(run_id).node in (FAST, PLAIN)
