"""At its start an agent kills what ended attempts left behind, and nothing that might be anything else."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent.node_side import KEY, shell
from agent.stub_coordinator import Agent, StubCoordinator
from harness.waiting import await_until

from runyard.agent.drivers.process.orphans import sweep
from runyard.agent.supervisor.exit_records import never_started
from runyard.agent.supervisor.records import ExitRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

Process = subprocess.Popen[bytes]
Spawn = Callable[..., Process]

OVER = ExitRecord("exited", "exited with code 0", ended_at=time.time(), code=0)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts processes with these variables in their environment."""
    made: list[Process] = []

    def start(**environment: str) -> Process:
        command = ["sleep", "60"]
        made.append(subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()


@pytest.fixture
def ended(directories: RunDirectories) -> RunDirectory:
    """An attempt whose exit is on disk."""
    directory = directories.create(KEY, shell("true"))
    directory.mark_starting()
    directory.write_exit(OVER)
    return directory


def of(directory: RunDirectory) -> dict[str, str]:
    """The environment of the attempt's processes."""
    return {"RUNYARD_ATTEMPT": directory.mark, "RUNYARD_RUN_DIRECTORY": str(directory.path)}


def test_what_an_ended_attempt_left_behind_is_killed(
    directories: RunDirectories, ended: RunDirectory, spawn: Spawn
) -> None:
    orphans = [spawn(**of(ended)) for _ in range(3)]
    assert set(sweep(directories)) == {orphan.pid for orphan in orphans}
    assert [orphan.wait(timeout=10) for orphan in orphans] == [-signal.SIGKILL] * 3


def test_an_attempt_without_an_exit_keeps_its_processes(directories: RunDirectories, spawn: Spawn) -> None:
    live = directories.create(KEY, shell("true"))
    live.mark_starting()
    worker = spawn(**of(live))
    assert sweep(directories) == {}
    assert worker.poll() is None


def test_an_attempt_that_a_shim_still_clears_away_is_left_to_it(
    directories: RunDirectories, ended: RunDirectory, spawn: Spawn
) -> None:
    process = spawn(**of(ended))
    lock = ended.try_lock()
    assert lock is not None
    assert sweep(directories) == {}
    os.close(lock)
    assert set(sweep(directories)) == {process.pid}


@pytest.mark.parametrize("whose", ["another agent's", "nobody's", "a pruned attempt's", "a damaged exit's"])
def test_what_is_not_provably_ours_and_over_is_left_alone(
    directories: RunDirectories, ended: RunDirectory, spawn: Spawn, tmp_path: Path, whose: str
) -> None:
    match whose:
        case "another agent's":
            other = RunDirectories(tmp_path / "other").create_refused(KEY, never_started("stopped", "never"))
            environment = of(other)
        case "nobody's":
            environment = {"RUNYARD_ATTEMPT": ended.mark}
        case "a pruned attempt's":
            environment = of(ended) | {"RUNYARD_RUN_DIRECTORY": str(ended.path.parent / "2")}
        case _:
            (ended.path / "exit").write_text("{")
            environment = of(ended)
    process = spawn(**environment)
    assert sweep(directories) == {}
    assert process.poll() is None


async def test_a_starting_agent_sweeps(
    new_agent: Callable[..., Agent],
    coordinator: StubCoordinator,
    directories: RunDirectories,
    ended: RunDirectory,
    spawn: Spawn,
) -> None:
    orphan = spawn(**of(ended))
    agent = new_agent()
    agent.start()
    await coordinator.session()
    assert await await_until(orphan.poll, "the orphan lives") == -signal.SIGKILL
    assert "orphan_killed" in agent.log()
