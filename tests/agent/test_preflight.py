"""What the agent looks at before it takes an attempt."""

import asyncio
import threading
from pathlib import Path

import pytest
from agent.node_side import KEY, Node, shell

from runyard.agent import preflight
from runyard.agent.config import PressureSettings
from runyard.agent.core.pressure import Room, Scarce
from runyard.agent.drivers.fake import FakeDriver
from runyard.agent.preflight import Preflight, Unfit
from runyard.agent.pressure import PressureWatch
from runyard.agent.records import SpecRecord
from runyard.agent.rundir import RunDirectories


def at_ease(directories: RunDirectories) -> Preflight:
    return Preflight(PressureWatch(PressureSettings(), directories.state))


class Hanging(FakeDriver):
    """A driver whose looks end when the test says so."""

    def __init__(self, directories: RunDirectories) -> None:
        super().__init__(directories, lambda key, phase: None)
        self.gate = threading.Event()
        self.looks = 0

    def missing(self, spec: SpecRecord) -> str:
        self.looks += 1
        self.gate.wait()
        return ""


async def test_worker_that_can_start_is_fit(node: Node) -> None:
    await at_ease(node.directories).check(node.driver, shell("exit 0", cwd="/"))


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        (SpecRecord(["/nowhere/python"], {}), "executable /nowhere/python does not exist on this node"),
        (SpecRecord(["prog"], {"PATH": "/nowhere"}), "'prog' is not in PATH"),
        (shell("exit 0", cwd="/nowhere"), "working directory /nowhere does not exist on this node"),
        (SpecRecord(["/etc/passwd"], {}), "executable /etc/passwd is not executable by the agent's user"),
    ],
    ids=["program", "program in PATH", "directory", "permission"],
)
async def test_worker_that_misses_something_is_unfit_and_told_what(
    node: Node, spec: SpecRecord, missing: str
) -> None:
    with pytest.raises(Unfit, match=missing):
        await at_ease(node.directories).check(node.driver, spec)
    assert node.directories.open(KEY) is None


async def test_nothing_is_taken_when_the_disk_is_nearly_full(node: Node, tmp_path: Path) -> None:
    watch = PressureWatch(PressureSettings(), tmp_path, lambda state: {Scarce.DISK: Room(1, 1 << 40)})
    await watch.look()
    with pytest.raises(Unfit, match="disk pressure: 1 of 1Ti of the state directory's disk left"):
        await Preflight(watch).check(node.driver, shell("exit 0"))


async def test_pressure_on_memory_alone_refuses_nothing_that_was_assigned(node: Node, tmp_path: Path) -> None:
    watch = PressureWatch(PressureSettings(), tmp_path, lambda state: {Scarce.MEMORY: Room(1, 1 << 40)})
    await watch.look()
    await Preflight(watch).check(node.driver, shell("exit 0"))


async def test_looks_that_hang_are_given_up_and_not_repeated_until_one_comes_back(
    directories: RunDirectories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "LOOK_WITHIN", 0.05)
    driver, checks, spec = Hanging(directories), at_ease(directories), shell("exit 0", cwd="/net/gone")
    try:
        for _ in range(preflight.MOST_HANGING):
            with pytest.raises(Unfit, match="/net/gone took over"):
                await checks.check(driver, spec)
        with pytest.raises(Unfit, match="is a network disk gone"):
            await checks.check(driver, spec)
        assert driver.looks == preflight.MOST_HANGING
    finally:
        driver.gate.set()
    async with asyncio.timeout(10):
        while True:
            try:
                await checks.check(driver, spec)
            except Unfit:
                await asyncio.sleep(0.01)
            else:
                break
