"""A whole agent that was killed, rebooted or restored from an old disk repeats and forgets nothing."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from agent.node_side import KEY, Gate, is_alive, kill_everything
from agent.stub_coordinator import Agent, StubCoordinator, StubSession
from harness.waiting import await_until, wait_until

from runyard.agent.supervisor.records import WorkerRecord
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.v1 import run_pb2

NewAgent = Callable[..., Agent]

RUNNING, FINISHED = run_pb2.PHASE_RUNNING, run_pb2.PHASE_FINISHED


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """The worker ends when it is opened."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Each start of the worker leaves a line here."""
    return tmp_path / "ledger"


@pytest.fixture
def worker(tmp_path: Path, gate: Gate, ledger: Path) -> Path:
    """A program that waits for the gate and exits with 5."""
    program = tmp_path / "worker"
    program.write_text(
        f"#!/bin/sh\necho started >> {ledger}\nuntil [ -e {gate.path} ]; do sleep 0.02; done\nexit 5\n"
    )
    program.chmod(0o755)
    return program


def starts(ledger: Path) -> int:
    return ledger.read_text().count("started") if ledger.exists() else 0


async def offered(session: StubSession, worker: Path) -> None:
    await session.beat(1)
    session.assign(worker, after=1)


async def test_a_reboot_is_told_in_the_first_words_of_the_agent(
    new_agent: NewAgent, coordinator: StubCoordinator, worker: Path, ledger: Path, directories: RunDirectories
) -> None:
    agent = new_agent()
    agent.start()
    session = await coordinator.session()
    await offered(session, worker)
    await session.status(RUNNING)
    await agent.kill()
    _forge_reboot(directories)

    agent.start()
    session = await coordinator.session(2)
    finished = await session.status(FINISHED)
    assert finished.outcome.kind == run_pb2.OUTCOME_KIND_NODE_LOST
    assert "rebooted" in finished.outcome.message
    session.assign(worker, after=0)  # as a coordinator that has not heard it yet
    await session.beat(len(session.beats) + 3)
    assert starts(ledger) == 1


def _forge_reboot(directories: RunDirectories) -> None:
    """Makes it look as if the machine had been restarted: no process is left, and the boot ID is another."""
    [directory] = directories.scan()
    worker = directory.read_worker()
    assert worker is not None
    kill_everything(directories)
    wait_until(directory.read_exit, "the fork server has nothing to say")
    (directory.path / "exit").unlink()
    record = WorkerRecord(
        worker.pid, worker.start_time, "another boot", worker.shim_pid, worker.shim_start_time, 0.0
    )
    directory.write_worker(record)


async def test_a_disk_restored_from_an_old_image_starts_nothing_and_is_told_by_its_epoch(
    new_agent: NewAgent,
    coordinator: StubCoordinator,
    worker: Path,
    ledger: Path,
    gate: Gate,
    directories: RunDirectories,
    tmp_path: Path,
) -> None:
    agent = new_agent()
    agent.start(RUNYARD_FAILPOINT="agent.after_accept")
    await offered(await coordinator.session(1), worker)
    assert await agent.ended() == -signal.SIGKILL
    shutil.copytree(directories.state, tmp_path / "image", symlinks=True)

    for number in (2, 3):
        agent.start()
        session = await coordinator.session(number)
        if number == 2:
            await offered(session, worker)
            await session.status(RUNNING)
            gate.open()
            finished = await session.status(FINISHED)
            assert finished.outcome.exit_code == 5
        await session.beat(5)
        await agent.kill()

    shutil.rmtree(directories.state)
    (tmp_path / "image").rename(directories.state)
    agent.start()
    session = await coordinator.session(4)
    assert session.hello.last_epoch == 1
    [attempt] = session.hello.attempts
    assert attempt.phase == run_pb2.PHASE_ASSIGNED
    await session.beat(5)
    assert starts(ledger) == 1


POINTS = (
    "agent.after_welcome",
    "agent.before_accept",
    "agent.after_accept",
    "agent.before_report_starting",
    "agent.after_start",
    "agent.before_report_running",
    "agent.before_report_finished",
    "agent.before_forget",
    "agent.after_forget",
)


@pytest.mark.parametrize("point", POINTS)
async def test_an_agent_killed_at_any_step_loses_no_run_and_doubles_none(
    new_agent: NewAgent,
    coordinator: StubCoordinator,
    worker: Path,
    ledger: Path,
    gate: Gate,
    directories: RunDirectories,
    point: str,
) -> None:
    gate.open()
    agent = new_agent()
    agent.start(RUNYARD_FAILPOINT=point)
    first = await coordinator.session(1)
    first.assign(worker, after=0)
    assert await agent.ended() == -signal.SIGKILL

    agent.start()
    session = await coordinator.session(2)
    await session.beat(1)
    if point != "agent.after_forget":  # then it is over, and the coordinator says so to nobody
        session.assign(worker, after=1)
        await await_until(lambda: session.finished(KEY.run_id), lambda: session.statuses())
    await await_until(
        lambda: all(each.acknowledged_at for each in directories.scan()), "the end is not acknowledged"
    )
    assert starts(ledger) == 1
    [directory] = directories.scan()
    exit_record = directory.read_exit()
    assert exit_record is not None
    assert exit_record.code == 5


@pytest.mark.parametrize("point", ["agent.before_stop", "agent.after_stop"])
async def test_a_stop_survives_the_death_of_the_agent(
    new_agent: NewAgent, coordinator: StubCoordinator, worker: Path, point: str
) -> None:
    agent = new_agent()
    agent.start(RUNYARD_FAILPOINT=point)
    session = await coordinator.session(1)
    await offered(session, worker)
    status = await session.status(RUNNING)
    session.stop(reason="by alice")
    assert await agent.ended() == -signal.SIGKILL

    agent.start()
    session = await coordinator.session(2)
    await session.beat(1)
    session.stop(reason="by alice")
    await await_until(lambda: session.finished(KEY.run_id), lambda: session.statuses())
    wait_until(lambda: not is_alive(status.pid), "the worker lives")
