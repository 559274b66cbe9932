"""A run with `stop_after` ends by itself when its node has lost the coordinator; any other run never does."""

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from agent.node_side import KEY, Node, hosted_agent, is_alive, shell, text_in
from harness.waiting import await_until, wait_until

from runyard.agent.admission.specs import build_spec_record
from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.model import LaunchIdentity
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.contact import ContactFile
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.v1 import run_pb2

STOP_AFTER = 1.0
LONG_AGO = 1_000.0


def obstinate(*, stop_after: float | None) -> SpecRecord:
    """A worker with a child in a session of its own; neither heeds SIGTERM."""
    child = """setsid sh -c 'trap "" TERM; echo $$ > child; while :; do sleep 0.05; done' &"""
    script = f"trap 'echo heard' TERM; {child} while :; do wait; done"
    return replace(shell(script, grace_seconds=0.3), stop_after=stop_after)


def quiet(*, stop_after: float | None) -> SpecRecord:
    """A worker that does nothing for a minute."""
    return replace(shell("echo up; exec sleep 60"), stop_after=stop_after)


@pytest.fixture
def contact(directories: RunDirectories) -> ContactFile:
    """The contact file of the node."""
    return ContactFile(directories.state)


async def test_with_the_agent_dead_the_worker_and_its_whole_tree_are_stopped(
    directories: RunDirectories, tmp_path: Path
) -> None:
    directory = directories.create(KEY, replace(obstinate(stop_after=STOP_AFTER), cwd=str(tmp_path)))
    with hosted_agent(directories) as agent:
        child = int(await text_in(tmp_path / "child"))
        agent.kill()
    worker = directory.read_worker()
    assert worker is not None
    exit_record = await await_until(directory.read_exit, "the worker lives on")
    assert (exit_record.cause, exit_record.signal) == ("stopped", signal.SIGKILL)
    assert "no contact with the coordinator for 1 s (stop_after)" in exit_record.message
    assert exit_record.why == "lease_expired"
    assert directory.stdout.read_text() == "heard\n"
    assert not is_alive(worker.pid)
    assert not is_alive(child)
    lived = exit_record.ended_at - worker.started_at
    assert STOP_AFTER <= lived < STOP_AFTER + 5


async def test_a_worker_lives_on_for_as_long_as_contacts_are_noted(node: Node, contact: ContactFile) -> None:
    directory = await node.start(quiet(stop_after=STOP_AFTER))
    worker = await node.running()
    until = time.monotonic() + 3 * STOP_AFTER
    while time.monotonic() < until:
        contact.write(procfs.boottime())
        assert is_alive(worker.pid)
        await asyncio.sleep(STOP_AFTER / 10)
    exit_record = await await_until(directory.read_exit, "the worker lives on after the last contact")
    assert exit_record.cause == "stopped"


async def test_without_the_policy_a_worker_is_kept_whatever_happens(node: Node, contact: ContactFile) -> None:
    contact.write(procfs.boottime() - LONG_AGO)
    kept = await node.start(quiet(stop_after=None))
    worker = await node.running()
    other = replace(KEY, run_id="run-b")
    fenced = await node.start(quiet(stop_after=STOP_AFTER), other)
    await await_until(fenced.read_exit, "even the fenced one lives on")
    assert is_alive(worker.pid)
    assert kept.read_stop() is None


async def test_a_contact_of_another_boot_is_none(node: Node, contact: ContactFile) -> None:
    contact.write(procfs.boottime())
    path = node.directories.state / "contact"
    path.write_text("another boot")
    os.utime(path, (procfs.boottime() + LONG_AGO,) * 2)
    directory = await node.start(quiet(stop_after=STOP_AFTER))
    assert (await await_until(directory.read_exit, "the worker lives on")).cause == "stopped"


async def test_the_agent_stands_in_for_a_dead_shim_and_a_dead_fork_server(node: Node) -> None:
    directory = await node.start(quiet(stop_after=STOP_AFTER))
    worker = await node.running()
    assert node.driver.fork_server_pid is not None
    for pid in (node.driver.fork_server_pid, worker.shim_pid):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.shim_pid), "the shim lives")
    assert is_alive(worker.pid)
    await await_until(lambda: not is_alive(worker.pid), "the worker lives on")
    stop = directory.read_stop()
    assert stop is not None
    assert "stop_after" in stop.reason


async def test_on_a_full_disk_contacts_are_noted_and_workers_are_stopped(small_disk: Path) -> None:
    directories = RunDirectories(small_disk / "state")
    contact, node = ContactFile(directories.state), Node(directories)
    contact.write(procfs.boottime())
    directory = await node.start(quiet(stop_after=STOP_AFTER))
    await node.running()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
    now = procfs.boottime()
    contact.write(now)
    assert contact.read() == pytest.approx(now)
    assert (await await_until(directory.read_exit, "the worker lives on")).cause == "stopped"
    await node.driver.close()


def test_a_contact_from_the_future_is_none(contact: ContactFile) -> None:
    contact.write(procfs.boottime() + LONG_AGO)
    assert contact.read() is None


def test_the_policies_of_a_launch_reach_the_run_directory(tmp_path: Path) -> None:
    launch = run_pb2.LaunchSpec(run_id=KEY.run_id, kind=run_pb2.LAUNCH_KIND_EXECUTE)
    settings = AgentSettings(state_directory=tmp_path)
    identity = LaunchIdentity(0, "", "", "")
    kept = build_spec_record(settings, identity, launch)
    assert (kept.stop_after, kept.grace_seconds) == (None, 30.0)
    launch.policies.stop_after.FromSeconds(300)
    launch.policies.grace.FromMilliseconds(2500)
    fenced = build_spec_record(settings, identity, launch)
    assert (fenced.stop_after, fenced.grace_seconds) == (300.0, 2.5)
