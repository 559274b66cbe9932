"""When the machine shuts down its runs are stopped and say so; when only the agent stops, they go on."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from agent.node_side import KEY, Node, is_alive, shell
from agent.stub_coordinator import Agent, StubCoordinator, StubSession

from runyard.agent.core.model import OutcomeKind
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import StopRequest, WorkerRecord
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.v1 import agent_pb2, run_pb2

NewAgent = Callable[..., Agent]
SHUTDOWN = run_pb2.OUTCOME_KIND_NODE_SHUTDOWN


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def polite(tmp_path: Path) -> Path:
    """A worker that ends when it is asked to."""
    return program(tmp_path / "polite", "exec sleep 60")


@pytest.fixture
def obstinate(tmp_path: Path) -> Path:
    """A worker that does not."""
    return program(tmp_path / "obstinate", "trap '' TERM; while :; do sleep 0.05; done")


async def running(
    agent: Agent, coordinator: StubCoordinator, worker: Path, grace: float = 30.0
) -> tuple[StubSession, agent_pb2.AttemptStatus]:
    agent.start()
    session = await coordinator.session()
    await session.beat(1)
    session.assign(worker, after=1, grace=grace)
    return session, await session.status(run_pb2.PHASE_RUNNING)


async def test_runs_end_as_node_shutdown_and_the_coordinator_hears_it_before_the_agent_leaves(
    new_agent: NewAgent, coordinator: StubCoordinator, polite: Path, directories: RunDirectories
) -> None:
    agent = new_agent(machine_state_command=["echo", "stopping"])
    session, status = await running(agent, coordinator, polite)
    agent.signal(signal.SIGTERM)
    finished = await session.status(run_pb2.PHASE_FINISHED)
    assert (finished.outcome.kind, finished.outcome.signal) == (SHUTDOWN, signal.SIGTERM)
    assert "the machine is shutting down" in finished.outcome.message
    assert await agent.ended() == 0
    assert not is_alive(status.pid)
    directory = directories.open(KEY)
    assert directory is not None
    assert directory.acknowledged_at is not None
    assert session.goodbye is not None
    assert not session.goodbye.HasField("expect_back_within")


async def test_a_worker_that_does_not_heed_is_killed_within_the_budget(
    new_agent: NewAgent, coordinator: StubCoordinator, obstinate: Path
) -> None:
    agent = new_agent(machine_state_command=["echo", "stopping"], shutdown_budget=2.0)
    session, status = await running(agent, coordinator, obstinate, grace=600.0)
    agent.signal(signal.SIGTERM)
    finished = await session.status(run_pb2.PHASE_FINISHED)
    assert (finished.outcome.kind, finished.outcome.signal) == (SHUTDOWN, signal.SIGKILL)
    assert await agent.ended() == 0
    assert not is_alive(status.pid)


async def test_no_offer_is_taken_while_the_machine_shuts_down(
    new_agent: NewAgent, coordinator: StubCoordinator, obstinate: Path, directories: RunDirectories
) -> None:
    agent = new_agent(machine_state_command=["echo", "stopping"], shutdown_budget=2.0)
    session, _ = await running(agent, coordinator, obstinate)
    agent.signal(signal.SIGTERM)
    await session.status(run_pb2.PHASE_STOPPING)
    session.assign(obstinate, run_id="run-b", after=session.beats[-1].sequence)
    assert await agent.ended() == 0
    assert [directory.run_id for directory in directories.scan()] == [KEY.run_id]


@pytest.mark.parametrize("command", [["echo", "running"], ["false"], ["/nowhere/systemctl"], []])
async def test_without_a_shutdown_of_the_machine_the_agent_leaves_its_runs(
    new_agent: NewAgent, coordinator: StubCoordinator, polite: Path, command: list[str]
) -> None:
    agent = new_agent(machine_state_command=command)
    session, status = await running(agent, coordinator, polite)
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 0
    assert session.goodbye is not None
    assert is_alive(status.pid)


async def test_a_machine_that_was_off_before_the_worker_ended_is_no_lost_node(
    node: Node, directories: RunDirectories
) -> None:
    directory = directories.create(KEY, shell("echo started"))
    directory.mark_starting()
    gone = procfs.ProcessIdentity(1, 1)
    directory.write_worker(WorkerRecord(gone.pid, gone.start_time, "another boot", gone.pid, 1, 0.0))
    directory.request_stop(StopRequest(1.0, "the machine is shutting down", 0.0, cause="node_shutdown"))
    await node.driver.recover()
    assert (await node.outcome()).kind is OutcomeKind.NODE_SHUTDOWN


async def test_a_run_that_a_user_stopped_before_stays_stopped(node: Node) -> None:
    await node.start(replace(shell("trap '' TERM; while :; do sleep 0.05; done"), grace_seconds=60.0))
    await node.running()
    await node.driver.stop(KEY, 60.0, "by alice")
    await node.driver.stop(KEY, 0.2, "the machine is shutting down", "node_shutdown")
    assert (await node.outcome()).kind is OutcomeKind.STOPPED
