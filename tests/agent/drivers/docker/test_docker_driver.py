"""Containers are started once, watched and stopped, and their ends are told apart: with a real engine."""

import asyncio
import json
import sys
import uuid
from pathlib import Path

import pytest
from agent.docker_side import DockerNode, python, shell
from agent.node_side import text_in
from harness.dockerd import HOST
from harness.waiting import await_until

from runyard.agent.core.model import AttemptKey, Finished, OutcomeKind, Running, Starting, Stopping
from runyard.agent.drivers.docker.enter import NOT_MINE
from runyard.agent.drivers.docker.plan.labels import container_name
from runyard.agent.drivers.docker.plan.plan import ENTER, ContainerPlan
from runyard.agent.node.facts import WorkerUsage
from runyard.agent.supervisor.records import SpecRecord

KEY = AttemptKey("run-a", 1)


@pytest.fixture(autouse=True)
def own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt for each test: what comes late for one does not meet the container of another."""
    monkeypatch.setitem(globals(), "KEY", AttemptKey(f"run-{uuid.uuid4()}", 1))


WAIT = "echo ready; while :; do sleep 0.05; done"
"""A script that ends by a signal only."""


def entering(worker_args: str, **kwargs: object) -> SpecRecord:
    """A worker as launches have it: Dagster, with these arguments."""
    plan = ContainerPlan("runyard-test/empty:1", "never", kwargs={"init": True, "volumes": HOST, **kwargs})
    argv = [sys.executable, ENTER, "execute_run", KEY.run_id]
    return SpecRecord(argv, env={}, worker_args=worker_args, driver="docker", container=plan.as_record())


@pytest.mark.parametrize(
    ("script", "kind", "code", "signal"),
    [
        ("exit 0", OutcomeKind.SUCCEEDED, 0, None),
        ("exit 7", OutcomeKind.FAILED, 7, None),
        ("kill -SEGV $$", OutcomeKind.FAILED, None, 11),
        ("kill -KILL $$", OutcomeKind.FAILED, None, 9),
    ],
)
async def test_the_end_of_a_container_is_told_as_it_was(
    docker_node: DockerNode, script: str, kind: OutcomeKind, code: int | None, signal: int | None
) -> None:
    await docker_node.start(shell(script), KEY)
    outcome = await docker_node.outcome(KEY)
    assert (outcome.kind, outcome.exit_code, outcome.signal) == (kind, code, signal), outcome
    assert [type(phase) for phase in docker_node.phases(KEY)] == [Starting, Running, Finished]


async def test_what_it_writes_is_in_the_run_directory_while_it_runs_and_after(
    docker_node: DockerNode,
) -> None:
    directory = await docker_node.start(shell("echo out; echo err >&2; read x < /gate", volumes=HOST), KEY)
    outcome = await docker_node.outcome(KEY)  # /gate is missing, so it ends
    assert directory.stdout.read_text() == "out\n"
    assert directory.stderr.read_text().startswith("err\n")
    assert outcome.stderr_tail.startswith("err\n")


async def test_output_appears_before_the_container_ends(docker_node: DockerNode) -> None:
    directory = await docker_node.start(shell(WAIT), KEY)
    assert await text_in(directory.stdout) == "ready\n"
    assert not isinstance(docker_node.phases(KEY)[-1], Finished)


async def test_a_stop_is_heard_by_the_worker_and_told_with_its_reason(docker_node: DockerNode) -> None:
    script = f"trap 'echo bye; exit 3' TERM; {WAIT}"
    directory = await docker_node.start(shell(script), KEY)
    await text_in(directory.stdout)
    await docker_node.driver.stop(KEY, 20.0, "by alice")
    outcome = await docker_node.outcome(KEY)
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.STOPPED, 3), outcome
    assert "by alice" in outcome.message
    assert directory.stdout.read_text() == "ready\nbye\n"
    assert any(isinstance(phase, Stopping) and phase.pid for phase in docker_node.phases(KEY))


async def test_a_worker_that_does_not_heed_the_stop_is_killed_after_its_grace(
    docker_node: DockerNode,
) -> None:
    directory = await docker_node.start(shell(f"trap '' TERM; {WAIT}"), KEY)
    await text_in(directory.stdout)
    await docker_node.driver.stop(KEY, 0.5, "by alice")
    outcome = await docker_node.outcome(KEY)
    assert (outcome.kind, outcome.signal) == (OutcomeKind.STOPPED, 9)


async def test_a_later_stop_shortens_the_grace(docker_node: DockerNode) -> None:
    directory = await docker_node.start(shell(f"trap '' TERM; {WAIT}"), KEY)
    await text_in(directory.stdout)
    await docker_node.driver.stop(KEY, 600.0, "by alice")
    await await_until(lambda: isinstance(docker_node.phases(KEY)[-1], Stopping), "no Stopping")
    await docker_node.driver.stop(KEY, 0.1, "by bob")
    assert (await docker_node.outcome(KEY)).kind is OutcomeKind.STOPPED


async def test_a_paused_container_is_stopped_too(docker_node: DockerNode) -> None:
    directory = await docker_node.start(shell(f"trap 'exit 3' TERM; {WAIT}"), KEY)
    await text_in(directory.stdout)
    with docker_node.engine.client() as client:
        client.containers.get(container_name(KEY)).pause()
    await docker_node.driver.stop(KEY, 20.0, "by alice")
    assert (await docker_node.outcome(KEY)).exit_code == 3


async def test_a_stop_that_comes_before_the_start_wins(docker_node: DockerNode) -> None:
    docker_node.directories.create(KEY, shell("exit 0"))
    await docker_node.driver.stop(KEY, 1.0, "by alice")
    await docker_node.driver.start(KEY)
    assert (await docker_node.outcome(KEY)).kind is OutcomeKind.STOPPED
    with docker_node.engine.client() as client:
        assert client.containers.list(all=True) == []


async def test_a_stop_that_comes_after_the_end_does_not_colour_it(docker_node: DockerNode) -> None:
    await docker_node.start(shell("sleep 0.5; exit 7"), KEY)
    await docker_node.running(KEY)
    with docker_node.engine.client() as client:
        # Nothing else happens meanwhile: this call holds up the whole node.
        assert client.containers.get(container_name(KEY)).wait()["StatusCode"] == 7
    await docker_node.driver.stop(KEY, 1.0, "by alice")
    outcome = await docker_node.outcome(KEY)
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.FAILED, 7)


async def test_starting_again_changes_nothing(docker_node: DockerNode, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    spec = shell("echo x >> /ledger; sleep 1", volumes=[*HOST, f"{ledger}:/ledger"])
    await docker_node.start(spec, KEY)
    await docker_node.driver.start(KEY)
    await docker_node.running(KEY)
    await docker_node.driver.start(KEY)
    await docker_node.outcome(KEY)
    assert ledger.read_text() == "x\n"


async def test_the_arguments_reach_the_worker_and_nobody_else(docker_node: DockerNode) -> None:
    directory = await docker_node.start(entering('{"__class__": "hunter2"}'), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.FAILED  # Dagster cannot read such arguments
    assert "hunter2" not in json.dumps(docker_node.inspect(KEY))
    assert "Traceback" in directory.stderr.read_text()


async def test_a_container_that_is_started_again_by_hand_runs_no_second_worker(
    docker_node: DockerNode,
) -> None:
    await docker_node.start(entering("{}"), KEY)
    await docker_node.outcome(KEY)
    with docker_node.engine.client() as client:
        container = client.containers.get(container_name(KEY))
        container.start()
        assert container.wait()["StatusCode"] == NOT_MINE
        assert b"not started twice" in container.logs()


async def test_arguments_reach_a_container_with_a_read_only_root(docker_node: DockerNode) -> None:
    directory = await docker_node.start(entering("no json at all", read_only=True), KEY)
    await docker_node.outcome(KEY)
    assert "dagster" in directory.stderr.read_text()


async def test_arguments_reach_a_worker_of_another_user(docker_node: DockerNode) -> None:
    # This machine's own Python may be out of another user's reach, so a plain look has to do.
    spec = shell("cat /.runyard/args && rm /.runyard/args && id -u", user="65534", worker_args="hunter2 ")
    directory = await docker_node.start(spec, KEY)
    assert (await docker_node.outcome(KEY)).exit_code == 0
    assert directory.stdout.read_text() == "hunter2 65534\n"


async def test_an_interpreter_that_the_image_has_not_is_named(docker_node: DockerNode) -> None:
    plan = ContainerPlan("runyard-test/empty:1", "never", kwargs={"init": True})
    argv = ["/opt/gone/python", ENTER, "execute_run", KEY.run_id]
    await docker_node.start(SpecRecord(argv, {}, driver="docker", container=plan.as_record()), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.START_FAILED, outcome
    assert "/opt/gone/python" in outcome.message


async def test_a_program_that_cannot_start_without_an_init_is_told(docker_node: DockerNode) -> None:
    plan = ContainerPlan("runyard-test/empty:1", "never")
    argv = ["/opt/gone/python", ENTER, "execute_run", KEY.run_id]
    await docker_node.start(SpecRecord(argv, {}, driver="docker", container=plan.as_record()), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.START_FAILED, outcome
    assert "/opt/gone/python" in outcome.message


async def test_an_argument_that_the_engine_refuses_is_told(docker_node: DockerNode) -> None:
    await docker_node.start(shell("exit 0", mem_limit="1k"), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.START_FAILED
    assert "memory" in outcome.message.lower()


async def test_an_argument_that_nobody_knows_is_told(docker_node: DockerNode) -> None:
    await docker_node.start(shell("exit 0", memory_limit="1g"), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.START_FAILED
    assert "memory_limit" in outcome.message


async def test_a_network_that_is_missing_is_told(docker_node: DockerNode) -> None:
    plan = ContainerPlan("runyard-test/empty:1", "never", networks=["nowhere"], kwargs={"volumes": HOST})
    await docker_node.start(SpecRecord(["/bin/true"], {}, driver="docker", container=plan.as_record()), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.START_FAILED
    assert "nowhere" in outcome.message


async def test_a_container_is_connected_to_all_of_its_networks(docker_node: DockerNode) -> None:
    with docker_node.engine.client() as client:
        names = ["net-a", "net-b"]
        networks = [client.networks.create(name) for name in names]
        try:
            plan = ContainerPlan("runyard-test/empty:1", "never", networks=names, kwargs={"volumes": HOST})
            spec = SpecRecord(["/bin/true"], {}, driver="docker", container=plan.as_record())
            await docker_node.start(spec, KEY)
            assert (await docker_node.outcome(KEY)).exit_code == 0
            assert set(docker_node.inspect(KEY)["NetworkSettings"]["Networks"]) == set(names)
        finally:
            docker_node.engine.remove_containers()
            for network in networks:
                network.remove()


async def test_a_container_of_the_same_name_that_is_not_ours_is_left_alone(docker_node: DockerNode) -> None:
    with docker_node.engine.client() as client:
        client.containers.create("runyard-test/empty:1", "/bin/true", name=container_name(KEY))
    await docker_node.start(shell("exit 0"), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.START_FAILED
    assert "did not make" in outcome.message


async def test_a_container_that_somebody_removed_is_not_taken_for_a_failure(docker_node: DockerNode) -> None:
    directory = await docker_node.start(shell(WAIT), KEY)
    await text_in(directory.stdout)
    with docker_node.engine.client() as client:
        client.containers.get(container_name(KEY)).remove(force=True)
    # Either its end was seen before it was gone, or not.
    assert (await docker_node.outcome(KEY)).kind in (OutcomeKind.EXIT_UNKNOWN, OutcomeKind.FAILED)


async def test_the_use_of_a_live_container_is_measured(docker_node: DockerNode) -> None:
    script = "import time\nb = b'x' * (50 << 20)\nprint('ready', flush=True)\ntime.sleep(600)"
    directory = await docker_node.start(python(script), KEY)
    await text_in(directory.stdout)

    def measured(usage: WorkerUsage | None) -> bool:
        return usage is not None and usage.rss_bytes > 50 << 20 and usage.last_output_at is not None

    for _ in range(600):
        if measured((await docker_node.driver.usage()).get(KEY)):
            break
        await asyncio.sleep(0.05)
    await docker_node.driver.stop(KEY, 0.0, "enough")
    assert (await docker_node.outcome(KEY)).peak_rss_bytes > 50 << 20
    assert await docker_node.driver.usage() == {}
