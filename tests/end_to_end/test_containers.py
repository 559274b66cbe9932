"""What containers have on top: limits that hold, and causes of death."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime

import dagster as dg
import docker
import psutil
import pytest
from agent.docker_registries import CLOSED, OPEN
from end_to_end.support.drivers import containers_only
from end_to_end.support.stage import CANCELED, FAILURE, NODE, SUCCESS, Stage, is_alive, open_stage
from harness.dagster_site import LAUNCH_IN_THE_CALLER

from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker.plan.labels import container_name
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
    assert outcome.memory_limit_bytes == 512 << 20
    assert outcome.peak_rss_bytes >= 512 << 20
    assert "killed because it ran out of memory (limit 512.0 MiB, peak 512.0 MiB)" in stage.failure(run_id)
    assert metadata_of_end(stage, run_id) >= {
        ("outcome", "OOM_KILLED"),
        ("exit cause", "oom_killed"),
        ("memory limit", "512.0 MiB"),
        ("peak memory", "512.0 MiB"),
    }
    assert tags_of(stage, run_id)["runyard/exit_cause"] == "oom_killed"
    assert told_after(stage, run_id) < 2.0
    stage.ground.release(neighbour)
    stage.wait_for_status(neighbour, SUCCESS)


def metadata_of_end(stage: Stage, run_id: str) -> set[tuple[str, str]]:
    """What the event beside the failure has, as text."""
    events = stage.site.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    (metadata,) = [
        entry.dagster_event.engine_event_data.metadata
        for entry in events
        if entry.dagster_event and "exit cause" in entry.dagster_event.engine_event_data.metadata
    ]
    return {(label, str(value.value)) for label, value in metadata.items()}


def told_after(stage: Stage, run_id: str) -> float:
    """Seconds from the end of the container, as its engine has it, to Dagster's failure of the run."""
    run = stage.find(run_id)
    assert run is not None
    host = json.loads(os.environ["RUNYARD_AGENT_DOCKER"])["host"]
    with closing(docker.DockerClient(host)) as client:
        container = client.containers.get(container_name(AttemptKey(run_id, run.attempt)))
    ended = container.attrs["State"]["FinishedAt"]
    (failure,) = stage.site.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    return failure.timestamp - datetime.fromisoformat(ended).timestamp()


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


def test_a_run_that_waits_for_its_image_says_how_far_the_pull_is(stage: Stage) -> None:
    run_id = stage.launch("succeed", image=f"{OPEN}/crawl:1")
    stage.wait_for_status(run_id, SUCCESS)
    pulling = re.compile(rf"pulling image {OPEN}/crawl:1: [\d.]+ of 4\.0 MiB, 0 of 1 layers unpacked")
    pulled = re.compile(rf"pulled image {OPEN}/crawl:1 in [\d.]+ s")
    in_dagster = [
        entry.message.removeprefix(f"Node {NODE} is preparing the worker: ")
        for entry in stage.site.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        if "is preparing the worker" in entry.message
    ]
    in_runyard = [event.message for event in stage.cluster.client.get_run(run_id).events]
    for lines in (in_dagster, in_runyard):
        assert len([line for line in lines if pulling.fullmatch(line)]) == 1, lines
        assert len([line for line in lines if pulled.fullmatch(line)]) == 1, lines
    assert pulling.search(show(stage, run_id))


def show(stage: Stage, run_id: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "runyard.cli.main", "--address", stage.cluster.address]
    done = subprocess.run(
        [*command, "run", "show", run_id], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("image", "cause", "message"),
    [
        (f"{CLOSED}/etl:1", "pull_denied", "pull denied"),
        (f"{OPEN}/etl:2", "image_not_found", "image not found"),
    ],
    ids=["denied", "not found"],
)
def test_an_image_that_cannot_be_had_fails_the_run_with_the_cause(
    stage: Stage, image: str, cause: str, message: str
) -> None:
    run_id = stage.launch("succeed", image=image)
    stage.wait_for_status(run_id, FAILURE)
    assert f"{message}: {image}" in stage.failure(run_id).lower()
    assert tags_of(stage, run_id)["runyard/exit_cause"] == cause
    assert stage.ground.starts(run_id) == []


def tags_of(stage: Stage, run_id: str) -> Mapping[str, str]:
    """The run's tags in Dagster."""
    run = stage.site.instance.get_run_by_id(run_id)
    assert run is not None
    return run.tags
