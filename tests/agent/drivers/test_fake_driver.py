"""The fake driver plays its script, with run directories as real as any other driver's."""

import asyncio

import pytest
from agent.node_side import KEY, shell
from harness.waiting import await_until

from runyard.agent.core.model import (
    Accepted,
    AttemptKey,
    AttemptPhase,
    Finished,
    OutcomeKind,
    Running,
    Starting,
    Stopping,
)
from runyard.agent.drivers.base import Driver
from runyard.agent.drivers.fake import FIRST_PID, FakeDriver, FakeRun
from runyard.agent.drivers.process.driver import ProcessDriver
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories

SPEC = SpecRecord([], {}, driver="fake")


class Stage:
    """A fake driver that plays one script, and what it told."""

    def __init__(self, directories: RunDirectories, run: FakeRun) -> None:
        self.directories = directories
        self.told: list[AttemptPhase] = []
        self.driver = FakeDriver(directories, lambda key, phase: self.told.append(phase), lambda key: run)

    async def play(self) -> None:
        self.directories.create(KEY, SPEC)
        await self.driver.start(KEY)

    async def end(self) -> Finished:
        await await_until(lambda: self.told and isinstance(self.told[-1], Finished), lambda: self.told)
        last = self.told[-1]
        assert isinstance(last, Finished)
        return last


async def test_it_plays_an_exit_code_and_stderr(directories: RunDirectories) -> None:
    stage = Stage(directories, FakeRun(run_for=0.01, exit_code=4, stderr="oh no\n"))
    await stage.play()
    outcome = (await stage.end()).outcome
    assert (outcome.kind, outcome.exit_code, outcome.stderr_tail) == (OutcomeKind.FAILED, 4, "oh no\n")
    assert stage.told[:-1] == [Starting(), Running(FIRST_PID)]


async def test_it_plays_a_failed_start(directories: RunDirectories) -> None:
    stage = Stage(directories, FakeRun(start_error="no such image"))
    await stage.play()
    outcome = (await stage.end()).outcome
    assert (outcome.kind, outcome.message) == (OutcomeKind.START_FAILED, "no such image")


@pytest.mark.parametrize(("heeds", "signal_number"), [(True, None), (False, 9)])
async def test_it_plays_a_stop(directories: RunDirectories, heeds: bool, signal_number: int | None) -> None:
    stage = Stage(directories, FakeRun(run_for=60, heeds_stop=heeds))
    await stage.play()
    await await_until(lambda: Running(FIRST_PID) in stage.told, lambda: stage.told)
    await stage.driver.stop(KEY, 0.01, "by alice")
    outcome = (await stage.end()).outcome
    assert (outcome.kind, outcome.signal) == (OutcomeKind.STOPPED, signal_number)
    assert Stopping(FIRST_PID) in stage.told


async def test_stop_before_start_wins(directories: RunDirectories) -> None:
    stage = Stage(directories, FakeRun())
    directories.create(KEY, SPEC)
    await stage.driver.stop(KEY, 1.0, "by alice")
    await stage.driver.start(KEY)
    assert (await stage.end()).outcome.kind is OutcomeKind.STOPPED
    assert len(stage.told) == 1


async def test_after_a_restart_what_was_played_ended_unseen(directories: RunDirectories) -> None:
    stage = Stage(directories, FakeRun(run_for=60))
    await stage.play()
    directories.create(AttemptKey("run-b", 1), SPEC)
    directories.create(AttemptKey("run-c", 1), shell("not mine"))
    await await_until(lambda: Running(FIRST_PID) in stage.told, lambda: stage.told)
    await stage.driver.close()
    first, second = await Stage(directories, FakeRun()).driver.recover()
    assert isinstance(first.phase, Finished)
    assert first.phase.outcome.kind is OutcomeKind.EXIT_UNKNOWN
    assert isinstance(second.phase, Accepted)


def test_both_drivers_are_drivers(directories: RunDirectories) -> None:
    drivers: list[Driver] = [
        FakeDriver(directories, lambda key, phase: None),
        ProcessDriver(directories, lambda key, phase: None),
    ]
    assert [driver.name for driver in drivers] == ["fake", "process"]
    assert asyncio.iscoroutinefunction(drivers[0].start)
