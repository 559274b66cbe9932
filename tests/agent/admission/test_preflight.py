"""Checks of a worker's prerequisites before its attempt is accepted."""

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from agent.node_side import KEY, Node, shell

from runyard.agent.admission import preflight
from runyard.agent.admission.errors import Unfit
from runyard.agent.admission.preflight import Preflight
from runyard.agent.config.pressure import PressureSettings
from runyard.agent.core.pressure import Room, Scarce
from runyard.agent.drivers.fake import FakeDriver
from runyard.agent.drivers.process.driver import worker_command
from runyard.agent.node.pressure import PressureMonitor
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories


def at_ease(directories: RunDirectories) -> Preflight:
    return Preflight(PressureMonitor(PressureSettings(), directories.state))


class Hanging(FakeDriver):
    """A driver whose checks end when the test opens the gate."""

    def __init__(self, directories: RunDirectories) -> None:
        super().__init__(directories, lambda key, phase: None)
        self.gate = threading.Event()
        self.looks = 0

    def missing(self, spec: SpecRecord) -> None:
        self.looks += 1
        self.gate.wait()


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
    watch = PressureMonitor(PressureSettings(), tmp_path, lambda state: {Scarce.DISK: Room(1, 1 << 40)})
    await watch.check()
    with pytest.raises(Unfit, match="disk pressure: 1 of 1Ti of the state directory's disk left"):
        await Preflight(watch).check(node.driver, shell("exit 0"))


async def test_pressure_on_memory_alone_refuses_nothing_that_was_assigned(node: Node, tmp_path: Path) -> None:
    watch = PressureMonitor(PressureSettings(), tmp_path, lambda state: {Scarce.MEMORY: Room(1, 1 << 40)})
    await watch.check()
    await Preflight(watch).check(node.driver, shell("exit 0"))


async def test_checks_that_hang_are_abandoned_and_not_repeated_until_one_returns(
    directories: RunDirectories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "CHECK_WITHIN", 0.05)
    driver, checks, spec = Hanging(directories), at_ease(directories), shell("exit 0", cwd="/net/gone")
    try:
        for _ in range(preflight.MOST_HANGING):
            with pytest.raises(Unfit, match="/net/gone took over"):
                await checks.check(driver, spec)
        with pytest.raises(Unfit, match="is a network disk unreachable"):
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


# What another user can reach


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, other than those of the tests."""
    if os.geteuid() != 0:
        pytest.skip("looking as another user needs root; run these tests in a container as root")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def program_in(folder: Path) -> Path:
    """A program that everybody may execute."""
    folder.mkdir(exist_ok=True)
    path = folder / "python"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


async def refusal(node: Node, spec: SpecRecord) -> str:
    with pytest.raises(Unfit) as found:
        await at_ease(node.directories).check(node.driver, spec)
    return str(found.value)


async def test_another_user_that_can_reach_everything_is_fit(node: Node, open_folder: Path) -> None:
    spec = SpecRecord([str(program_in(open_folder))], {}, str(open_folder), run_as="nobody")
    await at_ease(node.directories).check(node.driver, spec)


async def test_a_working_directory_closed_to_the_user_makes_unfit(node: Node, open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    spec = SpecRecord([str(program_in(open_folder))], {}, str(closed), run_as="nobody")
    assert await refusal(node, spec) == (
        f"working directory {closed} cannot be entered by user nobody (run_as); give it access on this node"
    )
    os.chown(closed, -1, 65534)
    closed.chmod(0o710)
    await at_ease(node.directories).check(node.driver, spec)


async def test_an_interpreter_closed_to_the_user_makes_unfit(node: Node, open_folder: Path) -> None:
    program = program_in(open_folder / "env")
    program.parent.chmod(0o700)
    (link := open_folder / "python").symlink_to(program)
    assert await refusal(node, SpecRecord([str(link)], {}, run_as="nobody")) == (
        f"executable {link} is not executable by user nobody (run_as); give it access on this node"
    )
    relative = SpecRecord(["env/python"], {}, str(open_folder), run_as="nobody")
    assert "executable env/python is not executable by user nobody" in await refusal(node, relative)


async def test_an_agent_installed_where_the_user_cannot_read_it_makes_unfit(
    node: Node, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = open_folder / "worker.py"
    script.touch(mode=0o600)
    monkeypatch.setattr("runyard.agent.supervisor.worker.__file__", str(script))
    spec = SpecRecord(
        worker_command(str(program_in(open_folder)), "execute_run", "run-a"), {}, run_as="nobody"
    )
    assert await refusal(node, spec) == (
        f"the agent's own {script} cannot be read by user nobody (run_as); install the agent where it can"
    )


async def test_an_unknown_user_makes_unfit_and_is_told_the_remedy(node: Node) -> None:
    assert await refusal(node, replace(shell("exit 0"), run_as="nobody-knows")) == (
        "user nobody-knows (run_as) does not exist on this node; "
        "create it there, or name another in isolation.run_as"
    )


async def test_what_cannot_be_looked_at_as_the_user_is_left_to_the_worker(
    node: Node, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runyard.agent.drivers.process.prerequisites.ANSWER_WITHIN", 0.0)
    await at_ease(node.directories).check(node.driver, replace(shell("exit 0"), run_as="nobody"))


# Dagster


async def test_only_run_workers_of_dagster_need_dagster(node: Node, tmp_path: Path) -> None:
    python = program_in(tmp_path / "bin")
    (tmp_path / "lib/python3.12/site-packages").mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text("version = 3.12.1\n")
    await at_ease(node.directories).check(node.driver, SpecRecord([str(python), "script.py"], {}))
    worker = SpecRecord(worker_command(str(python), "execute_run", "run-a"), {})
    assert "has no Dagster in" in await refusal(node, worker)
