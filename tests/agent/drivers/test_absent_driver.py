"""Attempts of a driver that the agent has no more are held: nobody takes them for gone, nobody runs them."""

import pytest
from agent.node_side import KEY

from runyard.agent.core.model import Accepted, AttemptPhase, Finished, OutcomeKind, Starting
from runyard.agent.drivers.absent import AbsentDriver
from runyard.agent.drivers.base import Driver
from runyard.agent.supervisor.exit_records import never_started
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories

SPEC = SpecRecord([], {}, driver="docker")


@pytest.fixture
def told() -> list[AttemptPhase]:
    """What the driver told."""
    return []


@pytest.fixture
def driver(directories: RunDirectories, told: list[AttemptPhase]) -> AbsentDriver:
    """Stands in for all drivers but that for processes."""
    return AbsentDriver(directories, lambda key, phase: told.append(phase), {"process"})


def test_it_is_a_driver_like_any_other(driver: Driver) -> None:
    assert driver.name == "absent"


async def test_an_attempt_whose_worker_may_live_is_held_and_left_alone(
    directories: RunDirectories, driver: AbsentDriver, told: list[AttemptPhase]
) -> None:
    directory = directories.create(KEY, SPEC)
    directory.mark_starting()
    (held,) = await driver.recover()
    assert (held.key, held.phase) == (KEY, Starting())
    await driver.start(KEY)
    await driver.stop(KEY, 5.0, "by alice")
    assert told == []
    assert directory.read_exit() is None
    stop = directory.read_stop()  # for the driver, once it is back
    assert stop is not None
    assert stop.reason == "by alice"


async def test_an_attempt_that_never_started_ends_when_it_is_asked_for(
    directories: RunDirectories, driver: AbsentDriver, told: list[AttemptPhase]
) -> None:
    directories.create(KEY, SPEC)
    (held,) = await driver.recover()
    assert held.phase == Accepted()
    await driver.start(KEY)
    (finished,) = told
    assert isinstance(finished, Finished)
    assert finished.outcome.kind is OutcomeKind.START_FAILED
    assert "no driver 'docker' any more" in finished.outcome.message


async def test_an_attempt_that_never_started_can_be_stopped(
    directories: RunDirectories, driver: AbsentDriver, told: list[AttemptPhase]
) -> None:
    directories.create(KEY, SPEC)
    await driver.stop(KEY, 5.0, "by alice")
    (finished,) = told
    assert isinstance(finished, Finished)
    assert finished.outcome.kind is OutcomeKind.STOPPED


async def test_an_end_that_nobody_has_heard_of_is_told(
    directories: RunDirectories, driver: AbsentDriver
) -> None:
    directory = directories.create(KEY, SPEC)
    directory.write_exit(never_started("exit_unknown", "gone"))
    (held,) = await driver.recover()
    assert isinstance(held.phase, Finished)


async def test_attempts_of_present_drivers_and_acknowledged_ones_are_none_of_its_business(
    directories: RunDirectories, driver: AbsentDriver
) -> None:
    directories.create(KEY, SpecRecord([], {}, driver="process"))
    over = directories.create(type(KEY)("run-b", 1), SPEC)
    over.acknowledge()
    assert await driver.recover() == []
