"""What containers have on top: limits that hold, and causes of death."""

from collections.abc import Iterator

import psutil
import pytest
from end_to_end.drivers import containers_only
from end_to_end.harness import CANCELED, FAILURE, SUCCESS, Stage, is_alive, open_stage
from examples.deployment.dagster_site import LAUNCH_IN_THE_CALLER

from runyard.v1 import run_pb2

pytestmark = containers_only


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("project"), LAUNCH_IN_THE_CALLER) as stage:
        yield stage


def test_a_run_that_outgrows_its_memory_is_told_and_its_neighbour_lives_on(stage: Stage) -> None:
    neighbour = stage.launch_busy("wait")
    run_id = stage.launch("devour", memory="512Mi")
    stage.wait_for_status(run_id, FAILURE, timeout=120)
    outcome = stage.wait_for_end(run_id)
    assert outcome.kind == run_pb2.OUTCOME_KIND_OOM_KILLED
    assert outcome.peak_rss_bytes >= 512 << 20
    assert "512 MiB" in stage.failure(run_id)
    run = stage.find(run_id)
    assert run is not None
    ended_at = run.finished_at.ToNanoseconds() / 1e9
    (told,) = [
        entry.timestamp
        for entry in stage.site.instance.all_logs(run_id)
        if entry.dagster_event and entry.dagster_event.event_type_value == "PIPELINE_FAILURE"
    ]
    assert told - ended_at < 2.0
    stage.ground.release(neighbour)
    stage.wait_for_status(neighbour, SUCCESS)


def test_stopping_a_run_of_many_processes_leaves_none_of_them(stage: Stage) -> None:
    run_id = stage.launch_busy("wait_in_child")
    worker = stage.worker(run_id)
    first = psutil.Process(worker.pid)
    family = [first.pid, *(child.pid for child in first.children(recursive=True))]
    assert len(family) > 3  # the init, the run worker, and what it started
    assert stage.terminate(run_id)
    stage.wait_for_status(run_id, CANCELED)
    stage.wait_for_end(run_id)
    assert not any(map(is_alive, family))
