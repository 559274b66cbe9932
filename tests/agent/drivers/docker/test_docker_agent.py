"""An agent with a Docker engine tells of it, and keeps its runs when engine or settings go away."""

from collections.abc import Iterator

import pytest
from agent.small_workers import Plant
from harness.dockerd import HOST, IMAGE, Dockerd
from harness.services import open_cluster
from harness.waiting import wait_until

from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker.plan.labels import container_name
from runyard.client import Client
from runyard.v1 import fleet_pb2, placement_pb2, run_pb2


@pytest.fixture
def plant(dockerd: Dockerd) -> Iterator[Plant]:
    """A cluster whose containers are gone in the end."""
    with open_cluster() as cluster:
        made = Plant(cluster)
        yield made
        made.close()
        dockerd.remove_containers()


def settings(dockerd: Dockerd) -> dict[str, object]:
    """Of an agent that runs what the launch names as the interpreter, with this machine's files."""
    return {"host": dockerd.address, "image": IMAGE, "pull": "never", "volumes": [*HOST, "/tmp:/tmp"]}


def launch(plant: Plant, number: int = 1, image: str = "", **resources: int) -> None:
    """Launches a worker in a container, which waits for its gate."""
    script = plant.folder / f"worker-{number}"
    script.write_text(
        f"#!/bin/sh\necho $$ >> {plant.folder}/starts-{number}\n"
        f"while [ ! -e {plant.folder}/gate-{number} ]; do sleep 0.05; done\nexit 4\n"
    )
    script.chmod(0o755)
    spec = run_pb2.LaunchSpec(
        run_id=plant.run_id(number),
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        worker_args="{}",
        deployment="shop",
        code_origin=run_pb2.CodeOrigin(location="shop.py", job="orders", executable=str(script)),
        requirements=placement_pb2.Requirements(driver="docker", image=image, resources=resources),
    )
    with Client(plant.cluster.address) as client:
        client.launch_run(spec, timeout=30.0)


def until_offered(plant: Plant, *drivers: str, node: str = "node-a") -> fleet_pb2.Node:
    """The node, as soon as it offers exactly these drivers."""

    def offered() -> fleet_pb2.Node | None:
        with Client(plant.cluster.address) as client:
            found = client.get_node(node)
        return found if tuple(found.offer.drivers) == drivers else None

    return wait_until(offered, f"the node does not offer {drivers}")


def test_the_driver_is_offered_for_as_long_as_the_engine_answers(plant: Plant, dockerd: Dockerd) -> None:
    plant.start_coordinator()
    plant.start_agent(docker=settings(dockerd))
    assert until_offered(plant, "process", "docker").offer.labels["runyard/docker"] == "ready"
    dockerd.kill()
    assert until_offered(plant, "process").offer.labels["runyard/docker"] == "unavailable"
    dockerd.start()
    assert until_offered(plant, "process", "docker").offer.labels["runyard/docker"] == "ready"


def test_a_run_in_a_container_outlives_the_agent_and_its_end_is_told(plant: Plant, dockerd: Dockerd) -> None:
    plant.start_coordinator()
    agent = plant.start_agent(docker=settings(dockerd))
    launch(plant)
    plant.until_phase(run_pb2.PHASE_RUNNING)
    agent.kill()
    plant.open_gate()
    plant.start_agent(docker=settings(dockerd))
    outcome = plant.outcome()
    assert (outcome.kind, outcome.exit_code) == (run_pb2.OUTCOME_KIND_FAILED, 4)
    assert len(plant.starts()) == 1


def test_a_run_is_kept_while_its_driver_is_configured_away(plant: Plant, dockerd: Dockerd) -> None:
    plant.start_coordinator()
    agent = plant.start_agent(docker=settings(dockerd))
    launch(plant)
    plant.until_phase(run_pb2.PHASE_RUNNING)
    agent.kill()
    without = plant.start_agent()
    run = plant.run()
    assert run is not None
    assert run.phase == run_pb2.PHASE_RUNNING
    plant.open_gate()
    without.terminate()
    plant.start_agent(docker=settings(dockerd))
    assert plant.outcome().exit_code == 4
    assert len(plant.starts()) == 1


def test_what_the_owner_forbids_is_refused_with_the_rule(plant: Plant, dockerd: Dockerd) -> None:
    plant.start_coordinator()
    plant.start_agent(docker={**settings(dockerd), "allow": {"images": ["good/*"]}})
    until_offered(plant, "process", "docker")
    launch(plant, image="evil:1")

    def reason_told() -> str | None:
        run = plant.run()
        return run.message if run and "docker.allow.images" in run.message else None

    reason = wait_until(reason_told, plant.describe)
    assert "evil:1" in reason
    with dockerd.client() as client:
        names = {container.name for container in client.containers.list(all=True)}
    assert container_name(AttemptKey(plant.run_id(), 1)) not in names


def test_what_one_node_cannot_start_goes_to_another(plant: Plant, dockerd: Dockerd) -> None:
    plant.start_coordinator()
    for node in ("node-a", "node-b"):  # their engine has no such devices, which only starting shows
        plant.start_agent(node, docker=settings(dockerd), gpus=[f"GPU-{node}"])
        until_offered(plant, "process", "docker", node=node)
    launch(plant, gpu=1)
    outcome = plant.outcome()
    assert (outcome.kind, outcome.cause) == (run_pb2.OUTCOME_KIND_START_FAILED, "gpu_unavailable")
    assert sorted(place.node for place in tried(plant)) == ["node-a", "node-b"]
    assert all("could not select device driver" in place.reason for place in tried(plant))
    assert plant.starts() == []


def test_what_one_node_has_not_is_had_on_another(plant: Plant, dockerd: Dockerd) -> None:
    plant.start_coordinator()
    plant.start_agent("node-a", docker={**settings(dockerd), "networks": ["nowhere"]})
    until_offered(plant, "process", "docker")
    plant.start_agent("node-b", docker=settings(dockerd))
    until_offered(plant, "process", "docker", node="node-b")
    for number in (1, 2):  # one of them is given to the first node first
        launch(plant, number)
        plant.open_gate(number)
    assert [plant.outcome(number).exit_code for number in (1, 2)] == [4, 4]
    refused = [place for number in (1, 2) for place in tried(plant, number)]
    assert {place.node for place in refused} == {"node-a"}
    assert "network nowhere is not in the engine" in refused[0].reason


def tried(plant: Plant, number: int = 1) -> list[run_pb2.FailedPlace]:
    """The nodes that did not start the run."""
    run = plant.run(number)
    assert run is not None
    return list(run.failed_places)
