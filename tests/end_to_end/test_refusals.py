"""What cannot or must not run is refused at once, in words that name the remedy."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.support.stage import FAILURE, NODE, SUCCESS, Stage, open_stage
from harness.dagster_site import LAUNCH_IN_THE_CALLER
from harness.processes import wait_for_text

from runyard.v1 import fleet_pb2, run_pb2

LAUNCHERS = 2
IMPATIENT = {"launch_timeout_seconds": 2}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("project"), LAUNCH_IN_THE_CALLER, IMPATIENT) as stage:
        yield stage


def refused(stage: Stage, job: str = "succeed", **tags: str) -> str:
    """Launches a run that must not be launched; returns what Dagster shows."""
    run = stage.create(job, **tags)
    with pytest.raises(Exception, match=r".+"):
        stage.site.submit(run)
    assert stage.site.status(run.run_id) == FAILURE
    assert stage.ground.starts(run.run_id) == []
    return stage.history(run.run_id)


def test_an_unknown_cluster_fails_the_run_and_the_known_ones_are_named(stage: Stage) -> None:
    message = refused(stage, cluster="atlantis")
    assert "atlantis" in message
    assert "default" in message


def test_labels_that_no_node_carries_fail_the_run_and_are_named(stage: Stage) -> None:
    message = refused(stage, labels='{"zone": "moon"}')
    assert "zone" in message
    assert "moon" in message


def test_a_tag_that_makes_no_sense_fails_the_run_with_the_remedy(stage: Stage) -> None:
    message = refused(stage, memory="plenty")
    assert "tag runyard/memory of the run: 'plenty' is not an amount of memory" in message
    assert "write for example 512M or 16Gi" in message


def test_a_misspelt_tag_fails_the_run_with_what_may_have_been_meant(stage: Stage) -> None:
    message = refused(stage, memroy="4Gi")
    assert "tag runyard/memroy of the run" in message
    assert "did you mean runyard/memory?" in message


def test_ops_that_contradict_each_other_fail_the_run_and_are_named(stage: Stage) -> None:
    message = refused(stage, job="disagree")
    assert "tag runyard/labels: op go_to_zone_a wants zone=a, but op go_to_zone_b wants zone=b" in message


def test_two_launches_of_one_run_by_two_processes_make_one_worker(stage: Stage) -> None:
    run = stage.create("wait")
    gate = stage.deployment.folder / "gate"
    launchers = [
        stage.deployment.processes.start(
            f"launcher-{number}",
            *(sys.executable, str(Path(__file__).parent / "support" / "launch_at_gate.py")),
            *(str(stage.site.home), run.run_id, str(gate)),
        )
        for number in range(LAUNCHERS)
    ]
    for launcher in launchers:
        wait_for_text(launcher, "at the gate")
    gate.touch()
    assert [launcher.process.wait(30) for launcher in launchers] == [0, 0], launchers[0].output()
    stage.wait_until_busy(run.run_id)
    stage.ground.release(run.run_id)
    stage.wait_for_status(run.run_id, SUCCESS)
    assert stage.wait_for_end(run.run_id).kind == run_pb2.OUTCOME_KIND_SUCCEEDED
    assert len(stage.ground.starts(run.run_id)) == 1


def test_a_second_agent_under_the_same_node_id_is_refused_while_the_first_lives(stage: Stage) -> None:
    before = stage.cluster.client.get_node(NODE)
    impostor = stage.cluster.begin_agent(NODE, "default", state="impostor")
    assert impostor.process.wait(30) != 0
    assert f"node ID '{NODE}' is in use by a live agent" in impostor.output()
    after = stage.cluster.client.get_node(NODE)
    assert (after.epoch, after.state) == (before.epoch, fleet_pb2.NODE_STATE_READY)
    run_id = stage.launch("succeed")
    stage.wait_for_status(run_id, SUCCESS)
    assert len(stage.ground.starts(run_id)) == 1


def test_a_launch_without_a_coordinator_fails_and_names_its_address(stage: Stage) -> None:
    stage.deployment.processes.kill(stage.cluster.coordinator)
    try:
        assert stage.cluster.address in refused(stage)
    finally:
        stage.cluster.start_coordinator()
