"""A whole agent reports the resources of its node, and those that each attempt holds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from agent.stub_coordinator import Agent, StubCoordinator
from harness.waiting import await_until

from runyard.agent.node.capacity import detect_machine
from runyard.v1 import placement_pb2, run_pb2

NewAgent = Callable[..., Agent]

HOLDS = placement_pb2.Requirements(
    driver="process", labels=["zone=a"], resources={"slots": 1, "cpu": 1500, "memory": 1 << 40}
)


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """A program that runs until it is stopped."""
    program = tmp_path / "worker"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    return program


async def test_hello_tells_what_was_found_and_what_was_set(
    new_agent: NewAgent, coordinator: StubCoordinator
) -> None:
    new_agent(labels={"zone": "a"}, resources={"licenses": 3, "gpu": 0}, reserved={}, taints=["gpu"]).start()
    offer = (await coordinator.session()).hello.offer
    machine = detect_machine()
    assert (offer.resources["cpu"], offer.resources["slots"], offer.resources["licenses"]) == (
        machine.cpu,
        4,
        3,
    )
    assert offer.resources["memory"] + offer.reserved["memory"] == machine.memory
    assert "gpu" not in offer.resources
    assert offer.labels["zone"] == "a"
    assert offer.labels["runyard/os"] == "linux"
    assert (list(offer.drivers), list(offer.taints), offer.gateway) == (["process"], ["gpu"], False)


async def test_heartbeats_do_not_repeat_an_offer_that_is_as_it_was(
    new_agent: NewAgent, coordinator: StubCoordinator
) -> None:
    new_agent().start()
    session = await coordinator.session()
    await session.beat(3)
    assert not any(beat.HasField("offer") for beat in session.beats)


async def test_an_attempt_tells_what_it_holds_until_it_is_over_and_after_a_restart_too(
    new_agent: NewAgent, coordinator: StubCoordinator, worker: Path
) -> None:
    agent = new_agent()
    agent.start()
    session = await coordinator.session()
    await session.beat(1)
    session.assign(worker, after=1, requirements=HOLDS)
    assert (await session.status(run_pb2.PHASE_STARTING)).requirements == HOLDS
    assert (await session.status(run_pb2.PHASE_RUNNING)).requirements == HOLDS
    beat = await session.beat(len(session.beats) + 2)
    assert [each.requirements for each in beat.attempts] == [HOLDS]

    await agent.kill()
    agent.start()
    session = await coordinator.session(2)
    assert [each.requirements for each in session.hello.attempts] == [HOLDS]

    session.stop()
    finished = await session.status(run_pb2.PHASE_FINISHED)
    assert not finished.HasField("requirements")


async def test_an_assignment_for_a_driver_that_the_agent_lacks_is_refused_by_name(
    new_agent: NewAgent, coordinator: StubCoordinator, worker: Path
) -> None:
    new_agent().start()
    session = await coordinator.session()
    await session.beat(1)
    session.assign(worker, after=1, requirements=placement_pb2.Requirements(driver="docker"))
    await await_until(lambda: session.reports, "no report")
    assert session.reports[0].rejection.reason == "this agent has no driver 'docker'"
