"""The fork server forks shims, reaps everything, and does the work of a shim that was killed."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from agent.node_side import KEY, is_alive, shell, text_in
from harness.waiting import await_until

from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.process.fork_server_client import ForkServerClient
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import WorkerRecord
from runyard.agent.supervisor.retry import LONGEST_PAUSE, Retry
from runyard.agent.supervisor.rundir import NoRoom, RunDirectories, RunDirectory


class Forks:
    """A fork server, and the run directories whose workers it said to have begun."""

    def __init__(self, directories: RunDirectories) -> None:
        self.directories = directories
        self.begun: list[Path] = []
        self.link = ForkServerClient(directories.state / "forkserver.log", self.begun.append)

    @property
    def log(self) -> str:
        """Everything that fork server and shims have complained of."""
        return (self.directories.state / "forkserver.log").read_text()

    async def start(
        self, script: str, key: AttemptKey = KEY, stop_after: float | None = None
    ) -> tuple[RunDirectory, WorkerRecord]:
        spec = replace(shell(script, grace_seconds=0.5), stop_after=stop_after)
        directory = self.directories.create(key, spec)
        await self.link.start_shim(directory.path)
        await await_until(lambda: directory.path in self.begun, "it has not begun")
        worker = directory.read_worker()
        assert worker is not None
        return directory, worker


@pytest.fixture
async def forks(directories: RunDirectories) -> AsyncIterator[Forks]:
    made = Forks(directories)
    await made.link.open()
    yield made
    made.link.close()


async def test_it_says_when_the_program_of_a_worker_has_begun(forks: Forks) -> None:
    directory, worker = await forks.start("sleep 60")
    assert os.readlink(f"/proc/{worker.pid}/exe") != os.readlink(f"/proc/{worker.shim_pid}/exe")
    assert forks.begun == [directory.path]


async def test_it_leaves_no_zombies(forks: Forks) -> None:
    started = [await forks.start("(setsid sleep 60 &) ; exit 0", AttemptKey("r", i)) for i in range(10)]
    for directory, _ in started:
        await await_until(directory.read_exit, "no exit")
    server = forks.link.pid
    assert server is not None
    await await_until(lambda: procfs.descendants(server, procfs.all_processes()) == [], "children are left")


async def test_it_writes_the_exit_of_a_worker_whose_shim_was_killed(forks: Forks) -> None:
    directory, worker = await forks.start("sleep 0.2; exit 9")
    os.kill(worker.shim_pid, signal.SIGKILL)
    exit_record = await await_until(directory.read_exit, "no exit")
    assert (exit_record.cause, exit_record.code) == ("exited", 9)
    assert exit_record.peak_rss_bytes > 0


async def test_it_ends_what_a_worker_without_a_shim_leaves_behind(forks: Forks) -> None:
    directory, worker = await forks.start("setsid sleep 60 & echo $!; wait")
    daemon = int(await text_in(directory.stdout))
    os.kill(worker.shim_pid, signal.SIGKILL)
    os.kill(worker.pid, signal.SIGKILL)
    exit_record = await await_until(directory.read_exit, "no exit")
    assert (exit_record.cause, exit_record.signal) == ("signaled", signal.SIGKILL)
    assert not is_alive(daemon)


async def test_it_goes_on_working_for_a_dead_agent_until_its_last_child_is_gone(forks: Forks) -> None:
    directory, worker = await forks.start("sleep 60; exit 9")
    server = forks.link.pid
    assert server is not None
    forks.link.close()
    os.kill(worker.shim_pid, signal.SIGKILL)
    await await_until(lambda: not is_alive(worker.shim_pid), "the shim lives")
    assert is_alive(server)
    os.kill(worker.pid, signal.SIGTERM)
    exit_record = await await_until(directory.read_exit, "no exit")
    assert exit_record.signal == signal.SIGTERM
    await await_until(lambda: not is_alive(server), "the fork server stays")


async def test_with_agent_and_shim_dead_it_stops_the_whole_tree_that_lost_its_coordinator(
    forks: Forks,
) -> None:
    script = "trap 'echo heard' TERM; (trap '' TERM; exec setsid sleep 60) & echo $!; while :; do wait; done"
    directory, worker = await forks.start(script, stop_after=1.0)
    child = int(await text_in(directory.stdout))
    forks.link.close()
    os.kill(worker.shim_pid, signal.SIGKILL)
    await await_until(lambda: not is_alive(worker.shim_pid), "the shim lives")
    assert is_alive(worker.pid)
    exit_record = await await_until(directory.read_exit, "the worker lives on")
    assert (exit_record.cause, exit_record.signal) == ("stopped", signal.SIGKILL)
    assert "stop_after" in exit_record.message
    assert "heard" in directory.stdout.read_text()
    assert not is_alive(child)


async def test_what_cannot_be_done_is_written_to_its_log(forks: Forks, tmp_path: Path) -> None:
    path = tmp_path / "no" / "run-x" / "1"
    await forks.link.start_shim(path)
    await await_until(lambda: str(path) in forks.log, lambda: forks.log)


async def test_a_shim_whose_run_directory_was_deleted_ends_with_its_worker(forks: Forks) -> None:
    directory, worker = await forks.start("sleep 60")
    shutil.rmtree(directory.path)
    os.kill(worker.pid, signal.SIGKILL)
    await await_until(lambda: not is_alive(worker.shim_pid), lambda: forks.log)
    assert forks.log.count("was deleted") == 1


async def test_a_fork_server_ends_though_the_directory_of_a_dead_shim_was_deleted(forks: Forks) -> None:
    directory, worker = await forks.start("sleep 60")
    server = forks.link.pid
    assert server is not None
    os.kill(worker.shim_pid, signal.SIGKILL)
    await await_until(lambda: not is_alive(worker.shim_pid), "the shim lives")
    shutil.rmtree(directory.path)
    os.kill(worker.pid, signal.SIGKILL)
    forks.link.close()
    await await_until(lambda: not is_alive(server), lambda: forks.log)
    assert forks.log.count("was deleted") <= 1


@pytest.mark.parametrize("dies", ["nothing", "the shim"])
async def test_an_exit_is_recorded_when_a_state_directory_that_was_away_is_back(
    forks: Forks, dies: str
) -> None:
    directory, worker = await forks.start("sleep 60")
    if dies == "the shim":
        os.kill(worker.shim_pid, signal.SIGKILL)
        await await_until(lambda: not is_alive(worker.shim_pid), "the shim lives")
    runs = directory.path.parent.parent
    away = runs.rename(runs.with_name("away"))
    os.kill(worker.pid, signal.SIGTERM)
    await await_until(lambda: "is not there" in forks.log, lambda: forks.log)
    away.rename(runs)
    exit_record = await await_until(directory.read_exit, lambda: forks.log)
    assert exit_record.signal == signal.SIGTERM


def test_a_disk_that_stays_full_is_reported_once_and_retried_less_and_less_often(
    capfd: pytest.CaptureFixture[str],
) -> None:
    retry = Retry("test")
    pauses = [retry.failed(NoRoom("full")) for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    assert capfd.readouterr().err == "test: full; trying again\n"
