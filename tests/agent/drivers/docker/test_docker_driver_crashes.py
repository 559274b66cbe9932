"""Whoever dies under live containers, engine or agent: no outcome and no output is lost or repeated."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent import hosted_docker_driver
from agent.docker_side import DockerNode, python, shell
from agent.node_side import Gate, is_alive, text_in
from harness.dockerd import HOST, Dockerd
from harness.waiting import await_until, wait_until

from runyard.agent.core.model import Accepted, AttemptKey, Finished, OutcomeKind, Running
from runyard.agent.drivers.docker import supervise
from runyard.agent.drivers.docker.plan.labels import container_name
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories

KEY = AttemptKey("run-a", 1)

COUNT = 10
"""How many containers live while something dies."""

KEYS = [AttemptKey(f"run-{number}", 1) for number in range(COUNT)]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Lets workers end. They see its folder as their own."""
    (tmp_path / "gate").mkdir()
    return Gate(tmp_path / "gate" / "open")


def waiting(gate: Gate, end: str) -> SpecRecord:
    """A worker that counts for as long as its gate is shut, and then ends so."""
    script = f"i=0; while [ ! -e {gate.path} ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo over; {end}"
    return shell(script, volumes=[*HOST, f"{gate.path.parent}:{gate.path.parent}"])


@contextmanager
def hosted(
    directories: RunDirectories, dockerd: Dockerd, *keys: AttemptKey, failpoint: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Another process that started attempts; killed at the failpoint, or at the end of the block."""
    names = [key.run_id for key in keys]
    command = [sys.executable, hosted_docker_driver.__file__, str(directories.state), dockerd.address, *names]
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "RUNYARD_FAILPOINT": failpoint}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as agent:
        try:
            yield agent
        finally:
            agent.kill()


def pids_of(node: DockerNode) -> list[int]:
    """The first process of every container that was seen to run."""
    return [phase.pid for _, phase in node.told if isinstance(phase, Running)]


def until_told(agent: subprocess.Popen[str], key: AttemptKey, phase: str, told: set[str]) -> None:
    """Reads what the agent tells into `told`, until that is among it."""
    assert agent.stdout is not None
    while f"{key} {phase}" not in told:
        told.add(agent.stdout.readline().strip())


def assert_copied(node: DockerNode, key: AttemptKey) -> None:
    """The run directory must hold what the engine does: nothing twice, nothing left out."""
    directory = node.directories.open(key)
    assert directory is not None
    with node.engine.client() as client:
        container = client.containers.get(container_name(key))
        assert directory.stdout.read_bytes() == container.logs(stdout=True, stderr=False)
        assert directory.stderr.read_bytes() == container.logs(stdout=False, stderr=True)


@pytest.mark.parametrize("options", [["--live-restore"], []], ids=["live-restore", "plain"])
async def test_all_outcomes_are_right_after_the_engine_was_killed_under_ten_containers(
    docker_node: DockerNode, dockerd: Dockerd, gate: Gate, options: list[str]
) -> None:
    dockerd.kill()
    dockerd.start(*options)
    for number, key in enumerate(KEYS):
        await docker_node.start(waiting(gate, f"exit {number}"), key)
    for key in KEYS:
        await docker_node.running(key)
    dockerd.kill()
    gate.open()  # they end while nobody watches
    await await_until(lambda: not any(map(is_alive, pids_of(docker_node))), "still alive")
    assert not any(isinstance(phase, Finished) for _, phase in docker_node.told)
    dockerd.start(*options)
    for number, key in enumerate(KEYS):
        outcome = await docker_node.outcome(key)
        assert outcome.exit_code == number, outcome
        assert_copied(docker_node, key)


async def test_containers_live_on_through_a_restart_of_the_engine_that_keeps_them(
    docker_node: DockerNode, dockerd: Dockerd, gate: Gate
) -> None:
    dockerd.kill()
    dockerd.start("--live-restore")
    directory = await docker_node.start(waiting(gate, "exit 5"), KEY)
    await text_in(directory.stdout)
    dockerd.kill()
    dockerd.start("--live-restore")
    before = directory.stdout.stat().st_size
    await await_until(lambda: directory.stdout.stat().st_size > before, "no more output")
    gate.open()
    assert (await docker_node.outcome(KEY)).exit_code == 5
    assert_copied(docker_node, KEY)


async def test_all_outcomes_are_right_after_the_agent_was_killed_under_ten_containers(
    directories: RunDirectories, dockerd: Dockerd, gate: Gate
) -> None:
    for number, key in enumerate(KEYS):
        directories.create(key, waiting(gate, f"exit {number}"))
    told: set[str] = set()
    with hosted(directories, dockerd, *KEYS) as agent:
        for key in KEYS:
            until_told(agent, key, "Running", told)
    gate.open()
    node = DockerNode(directories, dockerd)
    await node.driver.open()
    try:
        held = {held.key: held.phase for held in await node.driver.recover()}
        assert set(held) == set(KEYS)
        assert all(isinstance(phase, Running) for phase in held.values())
        for number, key in enumerate(KEYS):
            assert (await node.outcome(key)).exit_code == number
            assert_copied(node, key)
    finally:
        await node.driver.close()
        dockerd.remove_containers()


async def test_output_is_copied_once_and_whole_through_many_restarts_of_the_agent(
    directories: RunDirectories, dockerd: Dockerd, gate: Gate
) -> None:
    script = (
        "import os, sys, time\n"
        "n = 0\n"
        f"while not os.path.exists({str(gate.path)!r}):\n"
        "    n += 1\n"
        "    (sys.stderr if n % 3 else sys.stdout).write(f'{n} ' + 'x' * (n % 50 * 1000) + '\\n')\n"
        "    sys.stdout.flush()\n"
        "    time.sleep(0.002)\n"
        "print(n)\n"
    )
    mounts = [*HOST, f"{gate.path.parent}:{gate.path.parent}"]
    directory = directories.create(KEY, python(script, volumes=mounts))
    for _ in range(5):
        before = directory.stderr.stat().st_size if directory.stderr.exists() else 0
        with hosted(directories, dockerd, KEY):
            wait_until(
                lambda: directory.stderr.exists() and directory.stderr.stat().st_size > before + 100_000,  # noqa: B023
                "no output",
            )
    gate.open()
    node = DockerNode(directories, dockerd)
    await node.driver.open()
    try:
        await node.driver.recover()
        assert (await node.outcome(KEY)).exit_code == 0
        assert_copied(node, KEY)
    finally:
        await node.driver.close()
        dockerd.remove_containers()


@pytest.mark.parametrize(
    "point", ["before_make", "after_make", "after_starting", "after_start", "before_exit", "after_exit"]
)
async def test_an_agent_killed_at_any_step_takes_the_attempt_up_and_starts_it_once(
    directories: RunDirectories, dockerd: Dockerd, tmp_path: Path, point: str
) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    spec = shell("echo x >> /ledger; echo done; exit 3", volumes=[*HOST, f"{ledger}:/ledger"])
    directories.create(KEY, spec)
    with hosted(directories, dockerd, KEY, failpoint=f"docker.{point}") as agent:
        assert agent.wait(30) == -signal.SIGKILL
    node = DockerNode(directories, dockerd)
    await node.driver.open()
    try:
        (held,) = await node.driver.recover()
        if isinstance(held.phase, Accepted):
            await node.driver.start(KEY)
        end = held.phase.outcome if isinstance(held.phase, Finished) else await node.outcome(KEY)
        assert end.exit_code == 3
        assert ledger.read_text() == "x\n"
        assert_copied(node, KEY)
    finally:
        await node.driver.close()
        dockerd.remove_containers()


async def test_a_start_waits_for_an_engine_that_is_away(docker_node: DockerNode, dockerd: Dockerd) -> None:
    dockerd.kill()
    await docker_node.start(shell("exit 4"), KEY)
    await await_until(lambda: docker_node.driver.trouble, "no trouble")
    dockerd.start()
    assert (await docker_node.outcome(KEY)).exit_code == 4


async def test_a_start_is_given_up_when_the_engine_stays_away(
    docker_node: DockerNode, dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "START_PATIENCE", 1.0)
    dockerd.kill()
    try:
        await docker_node.start(shell("exit 4"), KEY)
        outcome = await docker_node.outcome(KEY)
        assert outcome.kind is OutcomeKind.START_FAILED
        assert "engine is not available" in outcome.message
    finally:
        dockerd.start()


async def test_an_engine_that_hangs_holds_up_nobody(docker_node: DockerNode, dockerd: Dockerd) -> None:
    directory = await docker_node.start(shell("echo ready; sleep 3; exit 6"), KEY)
    await text_in(directory.stdout)
    dockerd.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(0.5):
            await docker_node.driver.usage()
            await docker_node.driver.stop(KEY, 60.0, "by alice")
        await await_until(lambda: docker_node.driver.trouble, "no trouble")
        assert not isinstance(docker_node.phases(KEY)[-1], Finished)
    finally:
        dockerd.signal(signal.SIGCONT)
    assert (await docker_node.outcome(KEY)).kind is OutcomeKind.STOPPED
    await await_until(lambda: not docker_node.driver.trouble, lambda: docker_node.driver.trouble)


async def test_attempts_are_listed_while_the_engine_is_away(
    directories: RunDirectories, dockerd: Dockerd, gate: Gate
) -> None:
    directories.create(KEY, waiting(gate, "exit 2"))
    with hosted(directories, dockerd, KEY) as agent:
        until_told(agent, KEY, "Running", set())
    dockerd.kill()
    node = DockerNode(directories, dockerd)
    await node.driver.open()
    try:
        (held,) = await node.driver.recover()
        assert isinstance(held.phase, Running)
        assert held.phase.pid > 0
        gate.open()
        dockerd.start()
        assert (await node.outcome(KEY)).exit_code == 2
    finally:
        await node.driver.close()
        dockerd.remove_containers()


async def test_stop_after_ends_a_container_that_is_out_of_touch(docker_node: DockerNode) -> None:
    await docker_node.start(shell("while :; do sleep 0.05; done", stop_after=1.0, grace_seconds=0.2), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.STOPPED
    assert "no contact with the coordinator" in outcome.message


async def test_stop_after_ends_a_container_also_while_the_agent_is_dead(
    directories: RunDirectories, dockerd: Dockerd
) -> None:
    script = "trap '' TERM; while :; do sleep 0.05; done"
    directory = directories.create(KEY, shell(script, stop_after=3.0, grace_seconds=1.0))
    with hosted(directories, dockerd, KEY) as agent:
        until_told(agent, KEY, "Running", set())
    try:
        with dockerd.client() as client:
            container = client.containers.get(container_name(KEY))
            assert container.status == "running"
            assert container.wait(timeout=30)["StatusCode"] == 137
        assert directory.read_exit() is None  # that is for an agent to write
        node = DockerNode(directories, dockerd)
        await node.driver.open()
        await node.driver.recover()
        outcome = await node.outcome(KEY)
        assert outcome.kind is OutcomeKind.STOPPED
        assert "no contact with the coordinator" in outcome.message
        await node.driver.close()
    finally:
        dockerd.remove_containers()
