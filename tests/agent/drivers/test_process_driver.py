"""A worker's life under the process driver: start, end, stop, and what it leaves behind."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from agent.node_side import KEY, Node, is_alive, shell, text_in
from harness.waiting import await_until

from runyard.agent.core.model import AttemptKey, Finished, OutcomeKind, Running, Starting, Stopping
from runyard.agent.drivers.base import UnknownAttempt
from runyard.agent.drivers.process.fork_server_client import ForkServerClient
from runyard.agent.supervisor.rundir import RunDirectories


async def test_a_worker_that_exits_zero_succeeded(node: Node) -> None:
    await node.start(shell("echo done"))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.exit_code, outcome.signal) == (OutcomeKind.SUCCEEDED, 0, None)
    assert outcome.peak_rss_bytes > 100_000
    assert [type(phase) for phase in node.phases()] == [Starting, Running, Finished]


async def test_a_worker_that_exits_otherwise_failed_with_its_code_and_its_last_words(node: Node) -> None:
    await node.start(shell("echo 'cannot open the w\\303\\244rehouse' >&2; exit 3"))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.FAILED, 3)
    assert outcome.stderr_tail == "cannot open the wärehouse\n"
    assert outcome.message == "exited with code 3"


async def test_a_worker_that_is_killed_failed_with_the_signal(node: Node) -> None:
    await node.start(shell("sleep 60"))
    os.kill((await node.running()).pid, signal.SIGKILL)
    outcome = await node.outcome()
    assert (outcome.kind, outcome.exit_code, outcome.signal) == (OutcomeKind.FAILED, None, signal.SIGKILL)
    assert "SIGKILL" in outcome.message


async def test_running_names_the_process_that_is_the_worker(node: Node) -> None:
    directory = await node.start(shell("echo $$; sleep 60"))
    worker = await node.running()
    assert Running(worker.pid) in node.phases()
    assert await text_in(directory.stdout) == f"{worker.pid}\n"


async def test_stop_gives_the_worker_its_grace_period_to_end_by_itself(node: Node) -> None:
    directory = await node.start(shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"))
    await text_in(directory.stdout)
    await node.driver.stop(KEY, 20.0, "by alice")
    outcome = await node.outcome()
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.STOPPED, 0)
    assert "by alice" in outcome.message
    assert directory.stdout.read_text() == "up\nbye\n"
    assert isinstance(node.phases()[-2], Stopping)


async def test_stop_kills_a_worker_that_outstays_its_grace_period(node: Node) -> None:
    directory = await node.start(shell("trap '' TERM; echo up; while :; do sleep 0.05; done"))
    await text_in(directory.stdout)
    await node.driver.stop(KEY, 0.3, "by alice")
    outcome = await node.outcome()
    assert (outcome.kind, outcome.signal) == (OutcomeKind.STOPPED, signal.SIGKILL)


async def test_a_second_stop_can_shorten_the_grace_period_but_not_lengthen_it(node: Node) -> None:
    directory = await node.start(shell("trap '' TERM; echo up; while :; do sleep 0.05; done"))
    await text_in(directory.stdout)
    await node.driver.stop(KEY, 60.0, "politely")
    await node.driver.stop(KEY, 0.1, "now")
    await node.driver.stop(KEY, 60.0, "politely again")
    assert (await node.outcome()).message.startswith("stopped (now)")


async def test_stop_reaches_a_worker_that_is_suspended(node: Node) -> None:
    directory = await node.start(shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"))
    await text_in(directory.stdout)
    os.kill((await node.running()).pid, signal.SIGSTOP)
    await node.driver.stop(KEY, 20.0, "by alice")
    assert (await node.outcome()).exit_code == 0


async def test_stop_before_start_wins_over_a_late_start(node: Node, tmp_path: Path) -> None:
    node.directories.create(KEY, shell(f"touch {tmp_path / 'canary'}"))
    await node.driver.stop(KEY, 10.0, "changed my mind")
    outcome = await node.outcome()
    assert outcome.kind is OutcomeKind.STOPPED
    assert outcome.message == "stopped before it started: changed my mind"
    await node.driver.start(KEY)
    await await_until(lambda: len([p for p in node.phases() if isinstance(p, Finished)]) == 2, "no answer")
    assert not (tmp_path / "canary").exists()


async def test_stop_during_the_start_ends_the_attempt_as_stopped(node: Node) -> None:
    keys = [AttemptKey(f"run-{number}", 1) for number in range(5)]
    for number, key in enumerate(keys):
        await node.start(shell("sleep 60"), key)
        await asyncio.sleep(0.004 * number)  # meets the start at different points
        await node.driver.stop(key, 5.0, "at once")
    for key in keys:
        assert (await node.outcome(key)).kind is OutcomeKind.STOPPED


async def test_stop_of_an_attempt_that_is_over_changes_nothing(node: Node) -> None:
    await node.start(shell("exit 3"))
    first = await node.outcome()
    node.told.clear()
    await node.driver.stop(KEY, 1.0, "too late")
    assert await node.outcome() == first


async def test_a_daemon_that_the_worker_leaves_behind_is_ended_with_it(node: Node, tmp_path: Path) -> None:
    daemon = "setsid sh -c 'echo $$ > daemon; exec sleep 60'"
    stray = "env -i setsid sh -c 'echo $$ > stray; exec sleep 60'"
    wait = "until [ -s daemon ] && [ -s stray ]; do sleep 0.01; done"
    await node.start(shell(f"({daemon} &); ({stray} &); {wait}; exit 4", cwd=str(tmp_path)))
    assert (await node.outcome()).exit_code == 4
    for name in ("daemon", "stray"):
        assert not is_alive(int((tmp_path / name).read_text()))


async def test_stop_ends_the_children_of_a_worker_that_dies_without_them(node: Node, tmp_path: Path) -> None:
    script = "(trap '' TERM; sh -c 'echo $PPID' > child; while :; do sleep 0.05; done) & echo up; wait"
    directory = await node.start(shell(script, cwd=str(tmp_path)))
    await text_in(directory.stdout)
    child = int(await text_in(tmp_path / "child"))
    await node.driver.stop(KEY, 20.0, "by alice")
    assert (await node.outcome()).signal == signal.SIGTERM
    assert not is_alive(child)


async def test_racing_starts_of_one_attempt_make_one_worker(
    directories: RunDirectories, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    directory = directories.create(KEY, shell(f"echo $$ >> {canary}; sleep 0.2"))
    links = [ForkServerClient(tmp_path / "log", lambda path: None) for _ in range(5)]
    for link in links:
        await link.open()
    await asyncio.gather(*(link.start_shim(directory.path) for link in links))
    await await_until(directory.read_exit, "no exit")
    assert len(canary.read_text().splitlines()) == 1
    for link in links:
        link.close()


async def test_repeated_starts_of_one_attempt_make_one_worker(node: Node, tmp_path: Path) -> None:
    await node.start(shell(f"echo $$ >> {tmp_path / 'canary'}; sleep 0.2"))
    await node.driver.start(KEY)
    await node.outcome()
    await node.driver.start(KEY)
    await await_until(lambda: isinstance(node.phases()[-1], Finished), "no answer")
    assert len((tmp_path / "canary").read_text().splitlines()) == 1


async def test_many_workers_at_once_all_come_to_their_own_end(node: Node) -> None:
    keys = [AttemptKey(f"run-{number}", 1) for number in range(20)]
    for number, key in enumerate(keys):
        await node.start(shell(f"exit {number}"), key)
    codes = [(await node.outcome(key)).exit_code for key in keys]
    assert codes == list(range(20))


async def test_an_attempt_that_is_not_on_disk_is_unknown(node: Node) -> None:
    with pytest.raises(UnknownAttempt, match="run-a/1"):
        await node.driver.start(KEY)
    with pytest.raises(UnknownAttempt, match="run-a/1"):
        await node.driver.stop(KEY, 1.0, "")


async def test_usage_is_measured_for_live_workers_only(node: Node) -> None:
    directory = await node.start(shell("echo up; sleep 60"))
    await text_in(directory.stdout)
    await node.running()
    usage = (await node.driver.usage())[KEY]
    assert usage.peak_rss_bytes >= usage.rss_bytes > 0
    assert usage.last_output_at is not None
    await node.driver.stop(KEY, 5.0, "by alice")
    await node.outcome()
    assert await node.driver.usage() == {}
