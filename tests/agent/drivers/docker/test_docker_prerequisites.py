"""What a container would miss is told before the attempt is taken, so that it goes to another node."""

import asyncio
import signal
import time
from dataclasses import replace

import pytest
from agent.docker_side import DockerNode, shell
from harness.dockerd import IMAGE
from harness.waiting import await_until

from runyard.agent.admission import preflight
from runyard.agent.admission.errors import Unfit
from runyard.agent.admission.preflight import Preflight
from runyard.agent.config.pressure import PressureSettings
from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker import driver
from runyard.agent.drivers.docker.engine import prerequisites
from runyard.agent.drivers.docker.plan.plan import ContainerPlan
from runyard.agent.node.pressure import PressureMonitor
from runyard.agent.supervisor.records import SpecRecord

KEY = AttemptKey("run-a", 1)


def wanting(plan: ContainerPlan) -> SpecRecord:
    """A worker in that container."""
    return replace(shell("exit 0"), container=plan.as_record())


def checks(node: DockerNode) -> Preflight:
    return Preflight(PressureMonitor(PressureSettings(), node.directories.state))


async def test_a_container_that_lacks_nothing_is_fit(docker_node: DockerNode) -> None:
    spec = wanting(ContainerPlan(IMAGE, "never", networks=["bridge"]))
    await checks(docker_node).check(docker_node.driver, spec)


@pytest.mark.parametrize(
    ("plan", "reason", "word"),
    [
        (
            ContainerPlan("no/such:1", "never"),
            r"image not found: no/such:1 .* docker\.pull is never",
            "image_not_found",
        ),
        (
            ContainerPlan(IMAGE, networks=["bridge", "nowhere"]),
            r"network nowhere is not in the engine",
            "network_missing",
        ),
    ],
    ids=["image", "network"],
)
async def test_what_the_engine_has_not_is_a_refusal_with_the_reason(
    docker_node: DockerNode, plan: ContainerPlan, reason: str, word: str
) -> None:
    with pytest.raises(Unfit, match=reason) as refusal:
        await checks(docker_node).check(docker_node.driver, wanting(plan))
    assert refusal.value.reason_code == word
    assert docker_node.directories.open(KEY) is None


async def test_an_image_that_may_be_pulled_is_no_reason(docker_node: DockerNode) -> None:
    await checks(docker_node).check(docker_node.driver, wanting(ContainerPlan("no/such:1")))


async def test_an_engine_that_is_gone_is_a_refusal_before_and_after_that_was_noticed(
    docker_node: DockerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "PING_EVERY", 0.1)
    spec = wanting(ContainerPlan(IMAGE, "never"))
    docker_node.engine.kill()
    try:
        with pytest.raises(Unfit, match=r"the engine cannot be reached: unix://"):
            await checks(docker_node).check(docker_node.driver, spec)
        await await_until(lambda: docker_node.driver.trouble, "nobody notices", timeout=15)
        with pytest.raises(Unfit, match=r"the engine cannot be reached: unix://"):
            await checks(docker_node).check(docker_node.driver, spec)
    finally:
        docker_node.engine.start()


async def test_an_engine_that_hangs_is_waited_for_by_the_start_and_not_by_the_look(
    docker_node: DockerNode,
) -> None:
    assert prerequisites.LOOK_WITHIN < preflight.CHECK_WITHIN
    plan = ContainerPlan(IMAGE, "never", networks=["bridge", "host", "none"])
    docker_node.engine.signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        await asyncio.wait_for(checks(docker_node).check(docker_node.driver, wanting(plan)), 30)
    finally:
        docker_node.engine.signal(signal.SIGCONT)
    assert time.monotonic() - began < preflight.CHECK_WITHIN
