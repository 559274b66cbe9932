"""Whoever is killed, the exit code is not lost, and no worker is started twice."""

import asyncio
import os
import platform
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from agent.node_side import KEY, Gate, Node, hosted_agent, is_alive, shell, text_in
from harness.waiting import await_until, wait_until

from runyard.agent.core.model import (
    Accepted,
    AttemptKey,
    Finished,
    LaunchIdentity,
    OutcomeKind,
    Running,
    Stopping,
)
from runyard.agent.drivers.process import supervise
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import SpecRecord, WorkerRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory

KERNEL_TELLS_EXITS = tuple(map(int, platform.release().split(".")[:2])) >= (6, 15)
"""From Linux 6.15 on a pidfd gives the exit status of any process: see pidfd_info in linux/pidfd.h."""


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Workers started by `counted` wait for it."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's worker."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
def short_exit_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which no fork server is left to write the exit."""
    monkeypatch.setattr(supervise, "EXIT_WAIT_SECONDS", 0.3)


def counted(gate: Gate, code: int = 5) -> SpecRecord:
    """A worker that leaves a line in `stdout` when it starts, and exits with `code` when the gate opens."""
    return shell(f"echo started; until [ -e {gate.path} ]; do sleep 0.02; done; exit {code}")


def starts(directory: RunDirectory) -> int:
    return directory.stdout.read_text().count("started")


@pytest.fixture
async def successor(directories: RunDirectories) -> AsyncIterator[Node]:
    """The node after a restart of its agent; not opened yet."""
    made = Node(directories)
    yield made
    await made.driver.close()


async def test_a_restarted_agent_takes_up_a_running_worker(node: Node, successor: Node, gate: Gate) -> None:
    directory = await node.start(replace(counted(gate), identity={"resume_number": 2, "job": "etl"}))
    worker = await node.running()
    await node.driver.close()

    [held] = await successor.driver.recover()
    assert held.key == KEY
    assert held.phase == Running(worker.pid)
    assert held.identity == LaunchIdentity(resume_number=2, deployment="", job="etl", location="")
    gate.open()
    assert (await successor.outcome()).exit_code == 5
    assert starts(directory) == 1


async def test_a_worker_that_ended_while_the_agent_was_away_is_found_with_its_exit_code(
    node: Node, successor: Node, gate: Gate
) -> None:
    directory = await node.start(counted(gate))
    await node.running()
    await node.driver.close()
    gate.open()
    await await_until(directory.read_exit, "no exit")

    [held] = await successor.driver.recover()
    assert isinstance(held.phase, Finished)
    assert held.phase.outcome.exit_code == 5


async def test_an_acknowledged_attempt_is_not_taken_up_again(node: Node, successor: Node) -> None:
    directory = await node.start(shell("exit 0"))
    await node.outcome()
    directory.acknowledge()
    assert await successor.driver.recover() == []


async def test_a_restarted_agent_starts_what_was_accepted_and_never_started(
    successor: Node, directories: RunDirectories
) -> None:
    directories.create(KEY, shell("exit 6"))
    await successor.driver.open()
    [held] = await successor.driver.recover()
    assert isinstance(held.phase, Accepted)
    await successor.driver.start(KEY)
    assert (await successor.outcome()).exit_code == 6


async def test_a_stop_that_was_written_before_the_agent_died_is_carried_out_after_it(
    successor: Node, directories: RunDirectories
) -> None:
    node = Node(directories)
    directories.create(KEY, shell("exit 6"))
    await node.driver.stop(KEY, 5.0, "by alice")
    await node.driver.close()
    [held] = await successor.driver.recover()
    assert isinstance(held.phase, Stopping | Finished)
    if isinstance(held.phase, Stopping):
        assert (await successor.outcome()).kind is OutcomeKind.STOPPED


async def test_a_killed_agent_loses_neither_the_worker_nor_its_exit_code(
    directories: RunDirectories, successor: Node, gate: Gate
) -> None:
    directory = directories.create(KEY, counted(gate))
    with hosted_agent(directories) as agent:
        await text_in(directory.stdout)
        agent.kill()

    [held] = await successor.driver.recover()
    assert isinstance(held.phase, Running)
    await successor.driver.start(KEY)  # as a confused coordinator would have it
    gate.open()
    assert (await successor.outcome()).exit_code == 5
    assert starts(directory) == 1


async def test_an_agent_killed_in_the_middle_of_a_start_leaves_one_worker_at_most(
    directories: RunDirectories, successor: Node, gate: Gate
) -> None:
    keys = [AttemptKey(f"run-{number}", 1) for number in range(4)]
    for number, key in enumerate(keys):
        directories.create(key, counted(gate))
        with hosted_agent(directories, key):
            await asyncio.sleep(0.002 * number)  # meets the start at different points

    await successor.driver.open()
    await successor.driver.recover()
    for key in keys:
        await successor.driver.start(key)
        await successor.running(key)
    gate.open()
    for key in keys:
        assert (await successor.outcome(key)).exit_code == 5
        found = directories.open(key)
        assert found is not None
        assert starts(found) == 1


async def test_stop_works_with_the_agent_dead_at_the_moment_of_the_grace_period(
    directories: RunDirectories, gate: Gate
) -> None:
    node = Node(directories)
    await node.driver.open()
    directory = await node.start(shell("trap '' TERM; echo up; while :; do sleep 0.05; done"))
    await text_in(directory.stdout)
    await node.running()
    await node.driver.stop(KEY, 0.5, "by alice")
    await await_until(lambda: isinstance(node.phases()[-1], Stopping), lambda: node.phases())
    await node.driver.close()
    exit_record = await await_until(directory.read_exit, "the shim did not enforce the grace period")
    assert (exit_record.cause, exit_record.signal) == ("stopped", signal.SIGKILL)


async def test_a_killed_shim_loses_neither_the_worker_nor_its_exit_code(node: Node, gate: Gate) -> None:
    directory = await node.start(counted(gate))
    worker = await node.running()
    os.kill(worker.shim_pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.shim_pid), "shim lives")
    assert is_alive(worker.pid)
    gate.open()
    assert (await node.outcome()).exit_code == 5
    assert starts(directory) == 1


async def test_shim_and_worker_killed_together_still_tell_the_signal(node: Node, gate: Gate) -> None:
    await node.start(counted(gate))
    worker = await node.running()
    os.kill(worker.shim_pid, signal.SIGSTOP)  # it must not see its worker end
    os.kill(worker.pid, signal.SIGKILL)
    os.kill(worker.shim_pid, signal.SIGKILL)
    assert (await node.outcome()).signal == signal.SIGKILL


async def test_stop_of_a_worker_without_shim_keeps_the_grace_period_and_ends_its_children(
    node: Node, tmp_path: Path
) -> None:
    child = "(trap '' TERM; sh -c 'echo $PPID' > child; while :; do sleep 0.05; done) &"
    script = f"trap 'echo heard' TERM; {child} echo up; while :; do wait; done"
    directory = await node.start(shell(script, cwd=str(tmp_path)))
    worker = await node.running()
    await text_in(directory.stdout)
    os.kill(worker.shim_pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.shim_pid), "shim lives")
    await node.driver.stop(KEY, 0.5, "by alice")
    outcome = await node.outcome()
    assert (outcome.kind, outcome.signal) == (OutcomeKind.STOPPED, signal.SIGKILL)
    assert "heard" in directory.stdout.read_text()
    assert not is_alive(int((tmp_path / "child").read_text()))


async def test_a_killed_fork_server_is_replaced_and_its_workers_go_on(node: Node, gate: Gate) -> None:
    await node.start(counted(gate))
    await node.running()
    first = node.driver.fork_server_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    other = AttemptKey("run-b", 1)
    await node.start(shell("exit 7"), other)
    assert (await node.outcome(other)).exit_code == 7
    assert node.driver.fork_server_pid not in (None, first)
    gate.open()
    assert (await node.outcome()).exit_code == 5


async def test_a_fork_server_killed_during_starts_starts_nothing_twice(node: Node, gate: Gate) -> None:
    keys = [AttemptKey(f"run-{number}", 1) for number in range(6)]
    found = []
    for number, key in enumerate(keys):
        found.append(await node.start(counted(gate), key))
        if number % 2 and node.driver.fork_server_pid:
            os.kill(node.driver.fork_server_pid, signal.SIGKILL)
    for key in keys:
        await node.running(key)
    gate.open()
    for key in keys:
        assert (await node.outcome(key)).exit_code == 5
    assert [starts(directory) for directory in found] == [1] * len(keys)


async def test_with_shim_and_fork_server_killed_only_the_kernel_can_tell(node: Node, gate: Gate) -> None:
    directory = await node.start(counted(gate))
    worker = await node.running()
    assert node.driver.fork_server_pid is not None
    os.kill(node.driver.fork_server_pid, signal.SIGKILL)
    os.kill(worker.shim_pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.shim_pid), "shim lives")
    gate.open()
    outcome = await node.outcome()
    known, unknown = (OutcomeKind.FAILED, 5), (OutcomeKind.EXIT_UNKNOWN, None)
    assert (outcome.kind, outcome.exit_code) in ([known] if KERNEL_TELLS_EXITS else [known, unknown])
    await _never_started_again(node, directory)


@pytest.mark.usefixtures("short_exit_wait")
async def test_with_everybody_killed_the_exit_is_unknown_and_the_attempt_is_not_started_again(
    node: Node, successor: Node, gate: Gate
) -> None:
    directory = await node.start(counted(gate))
    worker = await node.running()
    fork_server = node.driver.fork_server_pid
    assert fork_server is not None
    await node.driver.close()
    os.kill(fork_server, signal.SIGKILL)
    os.kill(worker.shim_pid, signal.SIGKILL)
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: procfs.read_stat(worker.pid) is None, "PID 1 has not reaped the worker")

    await successor.driver.open()
    await successor.driver.recover()
    assert (await successor.outcome()).kind is OutcomeKind.EXIT_UNKNOWN
    exit_record = directory.read_exit()
    assert exit_record is not None
    assert exit_record.cause == "exit_unknown"
    await _never_started_again(successor, directory)


async def _never_started_again(node: Node, directory: RunDirectory) -> None:
    node.told.clear()
    await node.driver.start(KEY)
    await node.outcome()
    assert starts(directory) == 1


async def test_a_shim_killed_before_the_program_began_means_that_nothing_ran(
    successor: Node, directories: RunDirectories
) -> None:
    directory = directories.create(KEY, shell("echo started"))
    directory.mark_starting()  # the last thing that shim did
    await successor.driver.recover()
    outcome = await successor.outcome()
    assert outcome.kind is OutcomeKind.START_FAILED
    assert "before the worker's program began" in outcome.message
    assert not directory.stdout.exists()


async def test_a_reboot_under_the_worker_is_a_lost_node(successor: Node, directories: RunDirectories) -> None:
    directory = directories.create(KEY, shell("echo started"))
    directory.mark_starting()
    directory.write_worker(_record(os.getpid(), boot_id="another"))
    await successor.driver.recover()
    outcome = await successor.outcome()
    assert (outcome.kind, outcome.reason_code) == (OutcomeKind.NODE_LOST, "node_rebooted")
    assert "rebooted" in outcome.message


@pytest.mark.usefixtures("short_exit_wait")
async def test_a_stranger_with_the_pid_of_a_dead_worker_is_left_alone(
    successor: Node, directories: RunDirectories, stranger: subprocess.Popen[bytes]
) -> None:
    directory = directories.create(KEY, shell("echo started"))
    directory.mark_starting()
    directory.write_worker(_record(stranger.pid, boot_id=procfs.boot_id()))
    await successor.driver.recover()
    await successor.driver.stop(KEY, 0.1, "by alice")
    assert (await successor.outcome()).kind is OutcomeKind.EXIT_UNKNOWN
    assert stranger.poll() is None


def _record(pid: int, boot_id: str) -> WorkerRecord:
    return WorkerRecord(pid, 1, boot_id, shim_pid=pid, shim_start_time=1, started_at=time.time())


async def test_damaged_files_end_the_attempt_as_unknown(successor: Node, directories: RunDirectories) -> None:
    directory = directories.create(KEY, shell("echo started"))
    (directory.path / "spec").write_text("{")
    [held] = await successor.driver.recover()
    assert isinstance(held.phase, Finished)
    assert held.phase.outcome.kind is OutcomeKind.EXIT_UNKNOWN
    assert "spec" in held.phase.outcome.message


async def test_the_fork_server_stays_for_its_children_and_then_leaves(node: Node, gate: Gate) -> None:
    await node.start(counted(gate))
    await node.running()
    fork_server = node.driver.fork_server_pid
    assert fork_server is not None
    await node.driver.close()
    assert is_alive(fork_server)
    gate.open()
    await await_until(lambda: not is_alive(fork_server), "the fork server stays")


async def test_signals_to_the_group_of_the_agent_do_not_reach_the_runs(node: Node, gate: Gate) -> None:
    await node.start(counted(gate))
    worker = await node.running()
    fork_server = node.driver.fork_server_pid
    assert fork_server is not None
    for pid in (fork_server, worker.shim_pid):
        assert os.getpgid(pid) != os.getpgrp()
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    gate.open()
    assert (await node.outcome()).exit_code == 5
    assert is_alive(fork_server)
