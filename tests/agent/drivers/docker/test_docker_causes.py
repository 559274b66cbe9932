"""However a container ends or fails to begin, one word tells programs why: with a real engine."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from agent.docker_registries import AWAY, CLOSED, OPEN, serving
from agent.docker_side import DockerNode, python, shell
from agent.node_side import text_in
from harness.dockerd import IMAGE, Dockerd

from runyard.agent.core.model import AttemptKey, Finished, Outcome, OutcomeKind
from runyard.agent.drivers.docker import supervise
from runyard.agent.drivers.docker.exit_records import ContainerState
from runyard.agent.drivers.docker.plan.plan import ENTER, ContainerPlan
from runyard.agent.node.gpus import with_gpus
from runyard.agent.session.conversions import outcome_of
from runyard.agent.supervisor.records import SpecRecord
from runyard.launcher.causes import exit_cause
from runyard.v1 import run_pb2

KEY = AttemptKey("run-a", 1)
LIMIT = 64 << 20
SMALL: dict[str, Any] = {"mem_limit": LIMIT, "memswap_limit": LIMIT}
EAT = "b = bytearray(200 << 20)"
WAIT = "echo ready; while :; do sleep 0.05; done"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts are given up after a second."""
    monkeypatch.setattr(supervise, "START_PATIENCE", 1.0)


@pytest.fixture(scope="module", autouse=True)
def registries(dockerd: Dockerd) -> Iterator[None]:
    with serving(dockerd):
        yield


def wanting(image: str = IMAGE, argv: list[str] | None = None, **plan: object) -> SpecRecord:
    """A worker in a container that is nothing but its image."""
    made = ContainerPlan(image, **{"kwargs": {"init": True}, **plan})  # type: ignore[arg-type]
    return SpecRecord(argv or ["/etl"], {}, driver="docker", container=made.as_record())


def word_of(outcome: Outcome, *, stop_requested: bool = False) -> str:
    """The value of the tag `runyard/exit_cause`."""
    return exit_cause(run_pb2.Run(outcome=outcome_of(outcome), stop_requested=stop_requested))


@pytest.mark.parametrize(
    ("spec", "kind", "word"),
    [
        (shell("exit 7"), OutcomeKind.FAILED, "exit_code_7"),
        (shell("kill -SEGV $$"), OutcomeKind.FAILED, "signal_SIGSEGV"),
        (shell("kill -KILL $$"), OutcomeKind.FAILED, "signal_SIGKILL"),
        (shell("kill -KILL $$", **SMALL), OutcomeKind.FAILED, "signal_SIGKILL"),
        (python(EAT, **SMALL), OutcomeKind.OOM_KILLED, "oom_killed"),
        (shell("exit 0", image="no/such:1"), OutcomeKind.START_FAILED, "image_not_found"),
        (wanting(f"{OPEN}/etl:2"), OutcomeKind.START_FAILED, "image_not_found"),
        (wanting(f"{CLOSED}/etl:1"), OutcomeKind.START_FAILED, "pull_denied"),
        (wanting(f"{AWAY}/etl:1"), OutcomeKind.START_FAILED, "image_unavailable"),
        (wanting(networks=["nowhere"]), OutcomeKind.START_FAILED, "network_missing"),
        (wanting(argv=["/no/python", ENTER]), OutcomeKind.START_FAILED, "executable_missing"),
        (wanting(argv=["/no/python", ENTER], kwargs={}), OutcomeKind.START_FAILED, "executable_missing"),
        (with_gpus(shell("exit 0"), ["GPU-a"]), OutcomeKind.START_FAILED, "gpu_unavailable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_cause_has_its_word(
    docker_node: DockerNode, spec: SpecRecord, kind: OutcomeKind, word: str
) -> None:
    await docker_node.start(spec, KEY)
    outcome = await docker_node.outcome(KEY)
    assert (outcome.kind, word_of(outcome)) == (kind, word), outcome


@pytest.mark.parametrize(
    ("devices", "visible"),
    [(["GPU-a", "GPU-c"], "GPU-a,GPU-c"), (["1", "3"], "0,1")],
    ids=["by UUID", "by index"],
)
async def test_a_container_asks_for_the_devices_of_its_run_and_for_no_others(
    docker_node: DockerNode, devices: list[str], visible: str
) -> None:
    await docker_node.start(with_gpus(shell("exit 0"), devices), KEY)
    outcome = await docker_node.outcome(KEY)  # no machine of tests has such devices
    assert outcome.kind is OutcomeKind.START_FAILED
    assert "the container cannot start" in outcome.message
    created = docker_node.inspect(KEY)
    assert created["HostConfig"]["DeviceRequests"] == [
        {"Driver": "", "Count": 0, "DeviceIDs": devices, "Capabilities": [["gpu"]], "Options": {}}
    ]
    environment = dict(entry.split("=", 1) for entry in created["Config"]["Env"])
    assert environment["CUDA_VISIBLE_DEVICES"] == visible
    assert environment["NVIDIA_VISIBLE_DEVICES"] == ",".join(devices)


async def test_an_engine_that_is_gone_has_its_word(docker_node: DockerNode) -> None:
    docker_node.engine.kill()
    try:
        await docker_node.start(shell("exit 0"), KEY)
        outcome = await docker_node.outcome(KEY)
    finally:
        docker_node.engine.start()
    assert (outcome.kind, word_of(outcome)) == (OutcomeKind.START_FAILED, "engine_unavailable"), outcome


async def test_a_stop_has_the_word_for_who_asked(docker_node: DockerNode) -> None:
    directory = await docker_node.start(shell(WAIT), KEY)
    await text_in(directory.stdout)
    await docker_node.driver.stop(KEY, 5.0, "by alice")
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.STOPPED
    assert (word_of(outcome, stop_requested=True), word_of(outcome)) == ("stopped_by_user", "stopped")


async def test_a_container_that_outgrows_its_memory_is_told_at_once_and_its_neighbour_lives_on(
    docker_node: DockerNode,
) -> None:
    neighbour = AttemptKey("run-b", 1)
    directory = await docker_node.start(shell(WAIT, **SMALL), neighbour)
    await text_in(directory.stdout)
    await docker_node.start(python(EAT, **SMALL), KEY)
    outcome = await docker_node.outcome(KEY)
    verdict = docker_node.directories.open(KEY)
    assert verdict is not None
    record = verdict.read_exit()
    assert record is not None
    assert time.time() - record.ended_at < 2.0
    assert (outcome.memory_limit_bytes, outcome.peak_rss_bytes) == (LIMIT, LIMIT)
    assert "killed by the kernel at its memory limit of 64 MiB" in outcome.message
    assert not isinstance(docker_node.phases(neighbour)[-1], Finished)
    await docker_node.driver.stop(neighbour, 5.0, "enough")
    assert (await docker_node.outcome(neighbour)).memory_limit_bytes == LIMIT


async def test_want_of_memory_that_the_engine_notices_after_the_end_is_still_the_cause(
    docker_node: DockerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ContainerState.of
    monkeypatch.setattr(ContainerState, "of", lambda attrs: replace(told(attrs), oom_killed=False))
    await docker_node.start(python(EAT, **SMALL), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.OOM_KILLED, outcome


async def test_a_child_that_outgrows_the_memory_takes_the_whole_container_with_it(
    docker_node: DockerNode,
) -> None:
    script = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {EAT!r}]); time.sleep(600)"
    await docker_node.start(python(script, **SMALL), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.OOM_KILLED, outcome
    assert outcome.memory_limit_bytes == LIMIT
