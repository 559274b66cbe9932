"""Who ends a run that waits too long for a node: Dagster by its start timeout, or Runyard with its reason.

Against a real coordinator with a real agent, and real rounds of Dagster's run monitoring.
"""

from collections.abc import Iterator

import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus
from dagster._core.events import JobFailureData, RunFailureReason
from harness.services import ProcessCluster, open_cluster
from harness.waiting import wait_until
from launcher.conftest import OpenShop
from launcher.shop import Shop
from launcher.support.reporters import reporting

from runyard.client import Client
from runyard.v1 import run_pb2

NODE = "node-a"
FAILURE = DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def closed_cluster() -> Iterator[ProcessCluster]:
    """A coordinator whose only node takes no new runs: whatever is launched waits."""
    with open_cluster() as cluster:
        cluster.coordinator().wait_for_event("ready")
        cluster.agent(NODE).wait_for_event("ready")
        with Client(cluster.address) as client:
            client.cordon_node(NODE)
        yield cluster


def monitored(seconds: int) -> dict[str, object]:
    """Settings of dagster.yaml under which Dagster fails what has not started after so long."""
    return {"run_monitoring": {"enabled": True, "start_timeout_seconds": seconds}}


def failure(shop: Shop, run_id: str) -> DagsterEvent:
    (event,) = shop.events(run_id, DagsterEventType.RUN_FAILURE)
    return event


def test_dagster_fails_a_run_that_waits_longer_than_its_start_timeout(
    closed_cluster: ProcessCluster, new_shop: OpenShop
) -> None:
    shop = new_shop({"address": closed_cluster.address}, monitored(seconds=1))
    run_id = shop.launch()
    with Client(closed_cluster.address) as client:
        assert client.get_run(run_id).run.phase == run_pb2.PHASE_QUEUED

    def failed() -> bool:
        assert not shop.monitor_once()
        return shop.status(run_id) == FAILURE

    wait_until(failed, "run monitoring fails the run")
    event = failure(shop, run_id)
    assert isinstance(event.event_specific_data, JobFailureData)
    assert event.event_specific_data.failure_reason == RunFailureReason.START_TIMEOUT
    assert "Run timed out due to taking longer than 1 seconds to start" in (event.message or "")
    assert "Waiting: 0/1 nodes available: 1 cordoned" in (event.message or "")


def test_a_run_that_dagster_failed_while_it_waited_never_starts(
    closed_cluster: ProcessCluster, new_shop: OpenShop
) -> None:
    shop = new_shop({"address": closed_cluster.address}, monitored(seconds=1))
    run_id = shop.launch()
    wait_until(lambda: shop.monitor_once() or shop.status(run_id) == FAILURE, "run monitoring fails the run")
    with Client(closed_cluster.address) as client, reporting(shop):
        gone = wait_until(
            lambda: run if (run := client.get_run(run_id).run).HasField("outcome") else None,
            "the reporter takes the run out of the queue",
        )
    assert gone.outcome.kind == run_pb2.OUTCOME_KIND_STOPPED
    assert not gone.node


def test_a_shorter_wait_in_runyard_ends_the_run_with_runyards_reason(
    closed_cluster: ProcessCluster, new_shop: OpenShop
) -> None:
    shop = new_shop({"address": closed_cluster.address, "max_queue_seconds": 1}, monitored(seconds=60))
    run_id = shop.launch()

    def failed() -> bool:
        assert not shop.monitor_once()
        return shop.status(run_id) == FAILURE

    with reporting(shop):
        wait_until(failed, "the reporter tells that the wait was too long")
    message = failure(shop, run_id).message or ""
    assert "exceeded its time limit" in message
    assert "within 1 s (max_queue_time); it was waiting: 0/1 nodes available: 1 cordoned" in message
