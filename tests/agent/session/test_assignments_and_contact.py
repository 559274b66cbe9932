"""Messages of a whole agent to a coordinator; it starts nothing after the deadline of an assignment."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from agent.node_side import KEY, is_alive
from agent.runtime_side import wired
from agent.stub_coordinator import Agent, StubCoordinator
from harness.waiting import await_until

from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.model import Accepted, Assignment
from runyard.agent.drivers.fake import FakeDriver
from runyard.agent.runtime.events import Assigned
from runyard.agent.spec_record.identities import identity_of
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.contact import ContactFile
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import Key, RunDirectories, RunDirectory
from runyard.v1 import placement_pb2, run_pb2

NewAgent = Callable[..., Agent]


@pytest.fixture
def agent(new_agent: NewAgent) -> Agent:
    """An agent that was started."""
    made = new_agent()
    made.start()
    return made


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Each start of `worker` leaves a line here."""
    return tmp_path / "ledger"


@pytest.fixture
def worker(tmp_path: Path, ledger: Path) -> Path:
    """A program that runs until it is stopped."""
    program = tmp_path / "worker"
    program.write_text(f"#!/bin/sh\necho started >> {ledger}\nexec sleep 60\n")
    program.chmod(0o755)
    return program


def assigned(spec: run_pb2.LaunchSpec, within: float) -> Assigned:
    """Assign the launch for so many seconds."""
    return Assigned(Assignment(KEY, identity_of(spec), spec, procfs.boottime() + within))


def starts(ledger: Path) -> int:
    return ledger.read_text().count("started")


async def test_an_offer_is_taken_in_time(
    agent: Agent, coordinator: StubCoordinator, worker: Path, ledger: Path
) -> None:
    session = await coordinator.session()
    await session.beat(2)
    session.assign(worker, within=10.0, after=2)
    status = await session.status(run_pb2.PHASE_RUNNING)
    assert is_alive(status.pid)
    await await_until(ledger.exists, "the worker has not begun")


async def test_an_offer_that_is_over_is_ignored_until_it_is_repeated(
    agent: Agent, coordinator: StubCoordinator, worker: Path, directories: RunDirectories
) -> None:
    session = await coordinator.session()
    await session.beat(10)
    session.assign(worker, within=0.05, after=1)
    session.assign(worker, within=10.0, after=1_000_000)  # of a heartbeat that was never sent
    after = len(session.beats) + 3
    await session.beat(after)
    assert directories.scan() == []
    assert session.reports == []
    session.assign(worker, within=10.0, after=after)
    await session.status(run_pb2.PHASE_RUNNING)


async def test_a_frozen_agent_starts_nothing_when_it_goes_on_after_the_offer(
    agent: Agent, coordinator: StubCoordinator, worker: Path, directories: RunDirectories
) -> None:
    session = await coordinator.session()
    last = await session.beat(2)
    agent.signal(signal.SIGSTOP)
    session.assign(worker, within=0.5, after=last.sequence)
    await asyncio.sleep(1.0)
    agent.signal(signal.SIGCONT)
    await await_until(lambda: "offer_not_taken" in agent.log(), agent.log)
    await session.beat(len(session.beats) + 3)
    assert directories.scan() == []


async def test_a_disk_that_is_slower_than_the_offer_leaves_the_attempt_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = RunDirectories(tmp_path / "state")
    create = directories.create

    def create_slowly(key: Key, spec: SpecRecord) -> RunDirectory:
        time.sleep(0.3)
        return create(key, spec)

    monkeypatch.setattr(directories, "create", create_slowly)
    agent = await wired(
        AgentSettings(state_directory=directories.state),
        lambda directories, on_change: {"fake": FakeDriver(directories, on_change)},
        directories,
    )
    runtime = agent.runtime
    launch = run_pb2.LaunchSpec(
        run_id=KEY.run_id,
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        requirements=placement_pb2.Requirements(driver="fake"),
    )
    await runtime.open()
    working = asyncio.create_task(runtime.run())
    await agent.events.put(assigned(launch, within=0.1))
    held = (await await_until(runtime.attempts, "the attempt is not held"))[0]
    assert isinstance(held.phase, Accepted)
    [directory] = directories.scan()
    assert not directory.is_starting
    await agent.events.put(assigned(launch, within=10.0))
    await await_until(lambda: directory.is_starting, "the next offer is not taken")
    working.cancel()
    await runtime.close()


async def test_what_was_acknowledged_is_noted_as_contact_and_nothing_else(
    agent: Agent, coordinator: StubCoordinator, directories: RunDirectories
) -> None:
    contact = ContactFile(directories.state)
    before = procfs.boottime()
    session = await coordinator.session()
    await await_until(lambda: (contact.read() or 0.0) > before, "Welcome is no contact")
    await session.beat(5)
    coordinator.acknowledges = False
    await session.beat(len(session.beats) + 2)
    last = await await_until(contact.read, "no contact")
    await session.beat(len(session.beats) + 5)
    assert contact.read() == last


async def test_a_silent_coordinator_ends_the_run_that_asked_for_it(
    agent: Agent, coordinator: StubCoordinator, worker: Path, directories: RunDirectories
) -> None:
    session = await coordinator.session()
    await session.beat(2)
    session.assign(worker, after=2, stop_after=1.0, grace=0.5)
    status = await session.status(run_pb2.PHASE_RUNNING)
    await session.beat(len(session.beats) + 15)
    assert is_alive(status.pid)
    coordinator.acknowledges = False
    finished = await session.status(run_pb2.PHASE_FINISHED)
    assert finished.outcome.kind == run_pb2.OUTCOME_KIND_STOPPED
    assert "stop_after" in finished.outcome.message
    assert not is_alive(status.pid)


async def test_an_agent_that_is_stopped_says_when_it_will_be_back_and_leaves_its_runs(
    new_agent: NewAgent, coordinator: StubCoordinator, worker: Path
) -> None:
    agent = new_agent(restart_grace=33.0)
    agent.start()
    session = await coordinator.session()
    await session.beat(1)
    session.assign(worker, after=1)
    status = await session.status(run_pb2.PHASE_RUNNING)
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 0
    assert session.goodbye is not None
    assert session.goodbye.expect_back_within.seconds == 33
    assert is_alive(status.pid)


async def test_the_epoch_outlives_the_agent(new_agent: NewAgent, coordinator: StubCoordinator) -> None:
    for number in (1, 2, 3):
        agent = new_agent()
        agent.start()
        session = await coordinator.session(number)
        assert session.hello.last_epoch == number - 1
        await session.beat(1)
        await agent.kill()


async def test_what_was_accepted_and_not_started_waits_for_the_next_offer(
    new_agent: NewAgent, coordinator: StubCoordinator, worker: Path, ledger: Path, directories: RunDirectories
) -> None:
    agent = new_agent()
    agent.start()
    session = await coordinator.session()
    await session.beat(1)
    session.assign(worker, after=1)
    await session.status(run_pb2.PHASE_RUNNING)
    await agent.kill()
    directory = directories.open(KEY)
    assert directory is not None
    spec = directory.read_spec()
    assert spec is not None
    second = directories.create(type(KEY)("run-b", 1), spec)

    agent.start()
    session = await coordinator.session(2)
    phases = {each.run_id: each.phase for each in session.hello.attempts}
    assert phases == {"run-a": run_pb2.PHASE_RUNNING, "run-b": run_pb2.PHASE_ASSIGNED}
    await session.beat(5)
    assert not second.is_starting
    assert starts(ledger) == 1
