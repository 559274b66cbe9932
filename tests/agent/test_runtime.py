"""The agent's runtime: events one after the other, everything on disk first, and no report lost."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from agent.runtime_side import wired
from harness.waiting import await_until

from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.effects import Reject, Report
from runyard.agent.core.model import Assignment, AttemptKey
from runyard.agent.drivers.base import Driver, MissingPrerequisite, OnChange
from runyard.agent.drivers.fake import FakeDriver, FakeRun
from runyard.agent.runtime import agent as runtime_agent
from runyard.agent.runtime import events as events_module
from runyard.agent.runtime import housekeeping
from runyard.agent.runtime import runtime as runtime_module
from runyard.agent.runtime.events import Acknowledged, Assigned, StopRequested
from runyard.agent.session.conversions import status_of
from runyard.agent.session.messages import report
from runyard.agent.spec_record.identities import identity_of
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import ExitRecord, SpecRecord
from runyard.agent.supervisor.rundir import NoRoom, RunDirectories, RunDirectory
from runyard.common.backoff import Backoff
from runyard.v1 import agent_pb2, placement_pb2, run_pb2

RUN_ID = "00000000-0000-4000-8000-000000000001"
KEY = AttemptKey(RUN_ID, 0)
NEXT = AttemptKey(RUN_ID, 1)
SOON = 30.0
FOR_EVER = 3_600.0

Script = Callable[[AttemptKey], FakeRun]


class Tracked(FakeDriver):
    """A fake driver that remembers which workers it started, and misses what the test says."""

    misses = ""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.started: list[AttemptKey] = []

    async def start(self, key: AttemptKey) -> None:
        await super().start(key)
        self.started.append(key)

    def missing(self, spec: SpecRecord) -> MissingPrerequisite | None:
        return MissingPrerequisite(self.misses, "executable_missing") if self.misses else None


class Agent:
    """An agent with a fake driver, and its reports to the coordinator."""

    def __init__(self, parts: runtime_agent.Agent) -> None:
        self.parts = parts
        self.runtime = parts.runtime
        self.directories = parts.directories
        driver = parts.drivers.by_name["fake"]
        assert isinstance(driver, Tracked)
        self.driver = driver
        self.told: list[agent_pb2.AttemptReport] = []

    @classmethod
    async def made(cls, state: Path, script: Script, **settings: Any) -> "Agent":
        def make_drivers(directories: RunDirectories, on_change: OnChange) -> dict[str, Driver]:
            return {"fake": Tracked(directories, on_change, script)}

        return cls(await wired(AgentSettings(state_directory=state, **settings), make_drivers))

    def take(self, about: Report | Reject) -> None:
        """Keep a report of the runtime."""
        self.told.append(report(about).report)

    def statuses(self) -> list[agent_pb2.AttemptStatus]:
        """Return all held attempts as Hello lists them."""
        return [status_of(held) for held in self.runtime.attempts()]

    async def assign(
        self, key: AttemptKey = KEY, driver: str = "fake", within: float = FOR_EVER, **fields: Any
    ) -> None:
        """The coordinator offers an attempt, for so many seconds."""
        spec = run_pb2.LaunchSpec(
            run_id=key.run_id,
            kind=run_pb2.LAUNCH_KIND_EXECUTE,
            deployment="shop",
            code_origin=run_pb2.CodeOrigin(location="shop.py", job="orders"),
            requirements=placement_pb2.Requirements(driver=driver),
            **fields,
        )
        assignment = Assignment(key, identity_of(spec), spec, start_by=procfs.boottime() + within)
        await self.parts.events.put(Assigned(assignment))

    async def stop(self, key: AttemptKey = KEY, grace: float = 5.0) -> None:
        """The coordinator stops an attempt."""
        await self.parts.events.put(StopRequested(key, grace, "a user stopped it"))

    async def acknowledge(self, key: AttemptKey = KEY) -> None:
        """The coordinator has the end of an attempt."""
        await self.parts.events.put(Acknowledged(key))

    def phases(self, key: AttemptKey = KEY) -> list[str]:
        """Return the reported phases of an attempt."""
        told = [each.status for each in self.told if each.HasField("status")]
        mine = [each for each in told if (each.run_id, each.attempt) == (key.run_id, key.attempt)]
        return [run_pb2.Phase.Name(each.phase).removeprefix("PHASE_").lower() for each in mine]

    def last(self) -> agent_pb2.AttemptReport:
        """Return the last report."""
        return self.told[-1]

    async def until_told(self, *phases: str, key: AttemptKey = KEY) -> None:
        """Wait until exactly these phases are reported."""
        await await_until(lambda: self.phases(key) == list(phases), lambda: self.phases(key), SOON)

    async def until_refused(self) -> agent_pb2.Rejection:
        """Wait for a rejection and return it."""
        await await_until(lambda: self.told and self.last().HasField("rejection"), lambda: self.told, SOON)
        return self.last().rejection


@contextlib.asynccontextmanager
async def working(
    state: Path, script: Script = lambda key: FakeRun(run_for=FOR_EVER), **settings: Any
) -> AsyncIterator[Agent]:
    """An agent that is in session for the length of the block."""
    agent = await Agent.made(state, script, **settings)
    with agent.runtime.reporting_to(lambda about: agent.take(about)):
        await agent.parts.open()
        taking = asyncio.create_task(agent.runtime.run())
        try:
            yield agent
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            await agent.parts.close()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent whose workers run until they are stopped."""
    async with working(tmp_path / "state") as made:
        yield made


def names_below(folder: Path) -> set[str]:
    """Names of all files and folders, at any depth."""
    return {path.name for path in folder.rglob("*")}


def secrets_in(folder: Path) -> list[str]:
    """Files that hold one of the secrets of these tests."""
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()
    )


def spec_of(directory: RunDirectory) -> bytes:
    return (directory.path / "spec").read_bytes()


def fill_up(disk: Path) -> Path:
    """Takes all room that is left; gives the file to delete."""
    filler = disk / "filler"
    filler.write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    return filler


# Assignments


async def test_attempt_is_told_phase_by_phase(tmp_path: Path) -> None:
    async with working(tmp_path, lambda key: FakeRun(exit_code=3, stderr="boom\n")) as agent:
        await agent.assign()
        await agent.until_told("starting", "running", "finished")
        outcome = agent.last().status.outcome
        assert (outcome.kind, outcome.exit_code) == (run_pb2.OUTCOME_KIND_FAILED, 3)
        assert outcome.stderr_tail == "boom\n"


async def test_attempt_is_on_disk_before_it_is_told(agent: Agent) -> None:
    on_disk: list[bool] = []
    agent.take = lambda about: on_disk.append(agent.directories.open(KEY) is not None)  # type: ignore[method-assign]
    await agent.assign()
    await await_until(lambda: on_disk, "nothing was told", SOON)
    assert on_disk[0]


async def test_secrets_leave_the_disk_when_the_worker_has_begun_and_the_rest_stays(agent: Agent) -> None:
    await agent.assign(environment={"API_TOKEN": "canary-token"}, worker_args="canary-args")
    await agent.until_told("starting", "running")
    directory = agent.directories.open(KEY)
    assert directory is not None
    await await_until(lambda: secrets_in(directory.path) == [], lambda: secrets_in(directory.path), SOON)
    spec = directory.read_spec()
    assert spec is not None
    assert (spec.driver, spec.identity["job"], spec.secret_names) == ("fake", "orders", ["API_TOKEN"])
    assert spec.fingerprints != []
    await agent.stop(grace=0.0)
    await agent.until_told("starting", "running", "stopping", "finished")
    await agent.acknowledge()
    await await_until(lambda: b'"fingerprints": []' in spec_of(directory), lambda: spec_of(directory), SOON)


async def test_secrets_stay_while_an_attempt_may_still_be_started(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting_out = asyncio.Event()

    async def take_for_ever(key: AttemptKey) -> None:
        setting_out.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(agent.driver, "start", take_for_ever)
    await agent.assign(environment={"API_TOKEN": "canary-token"}, worker_args="canary-args")
    await setting_out.wait()
    await agent.until_told("starting")
    directory = agent.directories.open(KEY)
    assert directory is not None
    assert secrets_in(directory.path) == ["spec"]


async def test_secrets_that_a_killed_agent_left_are_deleted_by_the_next(tmp_path: Path) -> None:
    directory = RunDirectories(tmp_path).create(
        KEY, SpecRecord(["true"], {"API_TOKEN": "canary-token"}, worker_args="canary-args", driver="fake")
    )
    directory.mark_starting()
    directory.write_exit(ExitRecord("exited", "", 1.0, code=0))
    async with working(tmp_path):
        assert secrets_in(directory.path) == []


async def test_repeated_assignment_is_answered_and_starts_nothing(agent: Agent) -> None:
    await agent.assign()
    await agent.until_told("starting", "running")
    await agent.assign()
    await agent.until_told("starting", "running", "running")
    assert agent.driver.started == [KEY]


async def test_assignment_that_comes_again_after_its_acknowledged_end_is_not_started_again(
    tmp_path: Path,
) -> None:
    async with working(tmp_path, lambda key: FakeRun()) as agent:
        await agent.assign()
        await agent.until_told("starting", "running", "finished")
        await agent.acknowledge()
        await await_until(lambda: not agent.runtime.attempts(), "still held", SOON)
        await agent.assign()
        await agent.until_told("starting", "running", "finished", "finished")
        assert agent.driver.started == [KEY]


async def test_driver_that_this_agent_lacks_is_refused_by_name(agent: Agent) -> None:
    await agent.assign(driver="docker")
    assert (await agent.until_refused()).reason == "this agent has no driver 'docker'"
    assert agent.directories.open(KEY) is None


async def test_attempt_whose_worker_would_miss_something_is_refused_and_leaves_no_trace(
    agent: Agent,
) -> None:
    agent.driver.misses = "executable /opt/shop/bin/python does not exist on this node"
    await agent.assign()
    refusal = await agent.until_refused()
    assert (refusal.reason, refusal.cause) == (agent.driver.misses, "executable_missing")
    assert agent.directories.open(KEY) is None


async def test_attempt_that_has_run_here_is_never_refused_whatever_is_missing_by_now(tmp_path: Path) -> None:
    async with working(tmp_path, lambda key: FakeRun()) as agent:
        await agent.assign()
        await agent.until_told("starting", "running", "finished")
        await agent.acknowledge()
        await await_until(lambda: not agent.runtime.attempts(), "still held", SOON)
        agent.driver.misses = "everything"
        await agent.assign()
        await agent.until_told("starting", "running", "finished", "finished")


async def test_run_id_that_cannot_name_a_directory_is_refused_and_nothing_is_written_elsewhere(
    agent: Agent, tmp_path: Path
) -> None:
    await agent.assign(AttemptKey("../../outside", 0))
    assert (await agent.until_refused()).run_id == "../../outside"
    assert names_below(tmp_path) == {"state", "runs"}


async def test_assignment_that_does_not_fit_on_the_disk_is_refused_and_the_next_attempt_is_not(
    small_disk: Path,
) -> None:
    async with working(small_disk / "state") as agent:
        filler = fill_up(small_disk)
        await agent.assign()
        assert "No space left on device" in (await agent.until_refused()).reason
        filler.unlink()
        await agent.assign(NEXT)
        await agent.until_told("starting", "running", key=NEXT)
        assert agent.driver.started == [NEXT]


async def test_worker_that_cannot_be_started_has_failed_to_start(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def vanish(key: AttemptKey) -> None:
        shutil.rmtree(agent.directories.state / "runs" / RUN_ID)
        await FakeDriver.start(agent.driver, key)

    monkeypatch.setattr(agent.driver, "start", vanish)
    await agent.assign()
    await agent.until_told("starting", "finished")
    outcome = agent.last().status.outcome
    assert outcome.kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert "is not on this node" in outcome.message


# Stops


async def test_stop_is_told_at_once_and_the_end_when_it_came(agent: Agent) -> None:
    await agent.assign()
    await agent.until_told("starting", "running")
    await agent.stop()
    await agent.until_told("starting", "running", "stopping", "finished")
    assert agent.last().status.outcome.kind == run_pb2.OUTCOME_KIND_STOPPED


async def test_stop_that_came_first_is_told_as_an_end_and_keeps_a_late_assignment_from_starting(
    agent: Agent,
) -> None:
    await agent.stop()
    await agent.until_told("finished")
    assert agent.last().status.outcome.message == "stopped before it started: a user stopped it"
    await agent.assign()
    await agent.until_told("finished", "finished")
    assert agent.driver.started == []


async def test_stop_that_came_first_is_remembered_over_a_restart_and_after_its_acknowledgement(
    tmp_path: Path,
) -> None:
    async with working(tmp_path) as agent:
        await agent.stop()
        await agent.until_told("finished")
        await agent.acknowledge()
        await await_until(lambda: not agent.runtime.attempts(), "still held", SOON)
    async with working(tmp_path) as agent:
        await agent.assign()
        await agent.until_told("finished")
        assert agent.driver.started == []


async def test_stop_that_came_first_but_does_not_fit_on_the_disk_is_not_promised(small_disk: Path) -> None:
    async with working(small_disk / "state") as agent:
        filler = fill_up(small_disk)
        await agent.stop()
        await agent.assign(NEXT, driver="docker")  # answered after the stop was taken
        await agent.until_refused()
        assert agent.phases() == []
        filler.unlink()
        await agent.stop()
        await agent.until_told("finished")


async def test_stop_that_does_not_fit_on_the_disk_is_tried_again_until_it_does(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "RETRY_STOP", Backoff(0.05, 0.05))
    async with working(small_disk / "state") as agent:
        await agent.assign()
        await agent.until_told("starting", "running")
        filler = fill_up(small_disk)
        await agent.stop()
        await agent.until_told("starting", "running", "stopping")
        await agent.assign(NEXT)  # meanwhile everything else goes on
        assert "still live here" in (await agent.until_refused()).reason
        filler.unlink()
        await agent.until_told("starting", "running", "stopping", "finished")


# Acknowledgements, and life without a session


async def test_acknowledged_attempt_is_marked_on_disk_and_listed_no_more(tmp_path: Path) -> None:
    async with working(tmp_path, lambda key: FakeRun()) as agent:
        await agent.assign()
        await agent.until_told("starting", "running", "finished")
        assert len(agent.statuses()) == 1
        await agent.acknowledge()
        await await_until(lambda: not agent.statuses(), "still listed", SOON)
        directory = agent.directories.open(KEY)
        assert directory is not None
        assert directory.acknowledged_at is not None


async def test_end_that_nobody_heard_of_is_listed_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with working(tmp_path, lambda key: FakeRun()) as agent:
        with agent.runtime.reporting_to(lambda about: None):
            await agent.assign()
            await await_until(
                lambda: [each.phase for each in agent.statuses()] == [run_pb2.PHASE_FINISHED],
                agent.statuses,
                SOON,
            )
        assert agent.told == []
    async with working(tmp_path) as agent:
        (status,) = agent.statuses()
        assert (status.run_id, status.phase) == (RUN_ID, run_pb2.PHASE_FINISHED)
        assert (status.deployment, status.job, status.location) == ("shop", "orders", "shop.py")


async def test_worker_without_a_session_is_followed_all_the_same(tmp_path: Path) -> None:
    agent = await Agent.made(tmp_path, lambda key: FakeRun())
    await agent.parts.open()
    taking = asyncio.create_task(agent.runtime.run())
    await agent.assign()
    await await_until(
        lambda: [each.phase for each in agent.statuses()] == [run_pb2.PHASE_FINISHED],
        agent.statuses,
        SOON,
    )
    assert agent.told == []
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    await agent.parts.close()


# Restarts


async def test_attempt_that_was_written_but_never_started_waits_for_the_next_offer_after_a_restart(
    tmp_path: Path,
) -> None:
    async with working(tmp_path) as agent:
        agent.driver.start = lambda key: asyncio.sleep(FOR_EVER)  # type: ignore[method-assign]
        await agent.assign()
        await agent.until_told("starting")
    async with working(tmp_path) as agent:
        assert [each.phase for each in agent.statuses()] == [run_pb2.PHASE_ASSIGNED]
        assert agent.driver.started == []
        await agent.assign()
        await agent.until_told("starting", "running")
        assert agent.driver.started == [KEY]


async def test_acknowledged_attempt_is_not_listed_after_a_restart(tmp_path: Path) -> None:
    async with working(tmp_path, lambda key: FakeRun()) as agent:
        await agent.assign()
        await agent.until_told("starting", "running", "finished")
        await agent.acknowledge()
        await await_until(lambda: not agent.statuses(), "still listed", SOON)
    async with working(tmp_path) as agent:
        assert agent.statuses() == []


async def test_end_whose_acknowledgement_does_not_fit_on_the_disk_is_told_once_more_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: RunDirectory) -> None:
        raise NoRoom("no space left on device")

    async with working(tmp_path, lambda key: FakeRun()) as agent:
        await agent.assign()
        await agent.until_told("starting", "running", "finished")
        with monkeypatch.context() as patched:
            patched.setattr(RunDirectory, "acknowledge", no_room)
            await agent.acknowledge()
            await await_until(lambda: not agent.statuses(), "still listed", SOON)
            await agent.stop(NEXT)
            await agent.until_told("finished", key=NEXT)
    async with working(tmp_path) as agent:
        assert [each.attempt for each in agent.statuses()] == [0, 1]


# Bounds


async def test_session_is_held_back_while_too_many_commands_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "COMMANDS_WAITING", 2)
    agent = await Agent.made(tmp_path, lambda key: FakeRun(run_for=FOR_EVER))
    await agent.parts.open()
    for attempt in range(2):
        await agent.stop(AttemptKey(RUN_ID, attempt))
    third = asyncio.create_task(agent.stop(AttemptKey(RUN_ID, 2)))
    _, waiting = await asyncio.wait({third}, timeout=0.05)
    assert waiting
    taking = asyncio.create_task(agent.runtime.run())
    await asyncio.wait_for(third, SOON)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    await agent.parts.close()


async def test_acknowledged_directories_are_tidied_away_and_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "PRUNE_EVERY", 0.1)
    async with working(tmp_path, lambda key: FakeRun(), keep_runs=0, keep_logs=0) as agent:
        other = AttemptKey("00000000-0000-4000-8000-000000000002", 0)
        for key in (KEY, other):
            await agent.assign(key)
            await agent.until_told("starting", "running", "finished", key=key)
        await agent.acknowledge()
        tidying = asyncio.create_task(housekeeping.prune_forever(agent.directories, agent.parts.settings))
        await await_until(lambda: agent.directories.open(KEY) is None, "still there", SOON)
        assert agent.directories.open(other) is not None
        tidying.cancel()
        await asyncio.gather(tidying, return_exceptions=True)
