"""The configurations of docs/docker.md, before and after, run the same job in the same kind of container."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest
import yaml
from examples.image import build
from harness.dagster_site import LAUNCH_IN_THE_CALLER
from harness.deployment import Deployment, open_deployment
from harness.dockerd import Dockerd
from harness.waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "docker.md"
ENDS = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
NETWORKS = ("shop", "shop-reports")


def block(name: str) -> Any:
    """A block of the page, with the folder of deployments instead of the example's."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, f"{PAGE} has no block {name}"
    return yaml.safe_load(found[1].replace("/srv/dagster", tempfile.gettempdir()))


@pytest.fixture(scope="module")
def shop(dockerd: Dockerd) -> Iterator[Dockerd]:
    """An engine with the example's image and networks, which DOCKER_HOST names."""
    pytest.importorskip("dagster_docker")
    build(dockerd.address)
    context = json.dumps(block("both/container_context.yaml"))
    environment = {
        "DOCKER_HOST": dockerd.address,
        "SHOP_TOKEN": "t0ken",
        "DAGSTER_CONTAINER_CONTEXT": context,
    }
    with dockerd.client() as client, mock.patch.dict(os.environ, environment):
        networks = [client.networks.create(name) for name in NETWORKS]
        yield dockerd
        dockerd.remove_containers()
        for network in networks:
            network.remove()


@dataclass(frozen=True)
class Made:
    """What of a container must be the same, whoever made it."""

    image: str
    environment: dict[str, str]
    networks: set[str]
    binds: list[str]
    labels: dict[str, str]
    hostname: str
    shared_memory: int

    @classmethod
    def of(cls, dockerd: Dockerd, run_id: str) -> "Made":
        """Of the one container of a run."""
        with dockerd.client() as client:
            (container,) = client.containers.list(all=True, filters={"label": f"dagster/run_id={run_id}"})
            attrs = container.attrs
        config, host = attrs["Config"], attrs["HostConfig"]
        environment = dict(entry.split("=", 1) for entry in config["Env"])
        return cls(
            image=config["Image"],
            environment={name: value for name, value in environment.items() if "RUNYARD" not in name},
            networks=set(attrs["NetworkSettings"]["Networks"]),
            binds=[bind.removesuffix(":rw") for bind in host["Binds"]],
            labels={
                name: value
                for name, value in config["Labels"].items()
                if not name.startswith("runyard.") and name != "dagster/run_id"
            },
            hostname=config["Hostname"],
            shared_memory=host["ShmSize"],
        )


def run_to_success(deployment: Deployment, dockerd: Dockerd) -> str:
    """Runs the example's quickest job, and returns when its container has ended too."""
    site = deployment.site
    run_id = site.submit(site.create_run("noop"))

    def history() -> str:
        entries = site.instance.all_logs(run_id)
        return "\n".join(f"{entry.message} {entry.dagster_event}" for entry in entries)

    wait_until(lambda: site.status(run_id) in ENDS, history, timeout=120)
    assert site.status(run_id) == dg.DagsterRunStatus.SUCCESS, history()
    with dockerd.client() as client:
        for container in client.containers.list(filters={"label": f"dagster/run_id={run_id}"}):
            container.wait(timeout=60)
    return run_id


def test_the_page_is_right_about_both_launchers(shop: Dockerd, tmp_path: Path) -> None:
    before = {**LAUNCH_IN_THE_CALLER, **block("before/dagster.yaml")}
    with open_deployment(settings=before) as deployment:
        old = Made.of(shop, run_to_success(deployment, shop))

    launcher = block("after/dagster.yaml")["run_launcher"]["config"]
    del launcher["address"]  # every deployment has its own
    routing = tmp_path / "routing.yaml"
    routing.write_text(yaml.safe_dump(block("after/routing.yaml")))
    agent = {"RUNYARD_AGENT_DOCKER": json.dumps(block("after/agent.yaml")["docker"])}
    with (
        mock.patch.dict(os.environ, agent),
        open_deployment(settings=LAUNCH_IN_THE_CALLER, launcher=launcher, routing=routing) as deployment,
    ):
        deployment.cluster.start_agent("alpha", "default")
        new = Made.of(shop, run_to_success(deployment, shop))

    assert new == old
    assert (new.environment["SHOP_TOKEN"], new.environment["REGION"]) == ("t0ken", "eu")
    assert (new.networks, new.hostname) == (set(NETWORKS), "reports")
