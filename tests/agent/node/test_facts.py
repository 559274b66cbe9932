"""Facts, load and usage match the kernel's figures."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from agent.node_side import KEY
from harness.waiting import wait_until

from runyard.agent.node.facts import UsageSampler, UsageTarget, WorkerUsage, node_facts, node_load
from runyard.agent.supervisor import procfs


def test_facts_are_those_of_this_machine() -> None:
    facts = node_facts()
    assert facts.cpu_count == os.cpu_count()
    assert facts.memory_bytes == psutil.virtual_memory().total
    assert facts.hostname == os.uname().nodename
    assert facts.python_version.count(".") == 2
    assert facts.agent_version


def test_load_is_within_its_bounds(tmp_path: Path) -> None:
    node_load(tmp_path)
    load = node_load(tmp_path)
    assert 0 <= load.cpu_fraction <= 1
    assert 0 < load.memory_available_bytes <= psutil.virtual_memory().total
    assert 0 < load.disk_available_bytes <= psutil.disk_usage(str(tmp_path)).total
    assert load.load_1m >= 0


@pytest.fixture
def target(tmp_path: Path) -> Iterator[UsageTarget]:
    """A worker that idles while its child is busy."""
    script = f"sh -c 'echo up > {tmp_path}/stdout; while :; do :; done' & wait"
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as process:
        wait_until(lambda: (tmp_path / "stdout").exists(), "not up")
        worker, nobody = procfs.identify(process.pid), procfs.ProcessIdentity(1, 0)
        assert worker is not None
        yield UsageTarget(worker, nobody, (tmp_path / "stdout", tmp_path / "stderr"))
        os.killpg(process.pid, signal.SIGKILL)


def test_usage_counts_the_descendants_of_the_worker(target: UsageTarget) -> None:
    sampler = UsageSampler()
    before = time.time()
    assert sampler.sample({KEY: target})[KEY].cpu_cores == 0.0

    def busy() -> WorkerUsage | None:
        usage = sampler.sample({KEY: target})[KEY]
        return usage if usage.cpu_cores > 0.1 else None

    usage = wait_until(busy, "the busy child is not seen")
    assert usage.cpu_cores <= node_facts().cpu_count
    assert usage.peak_rss_bytes >= usage.rss_bytes > 100_000
    assert usage.last_output_at == pytest.approx(before, abs=5)


def test_a_process_that_inherited_the_pid_is_not_measured(target: UsageTarget) -> None:
    other = procfs.ProcessIdentity(target.worker.pid, target.worker.start_time - 1)
    assert UsageSampler().sample({KEY: UsageTarget(other, target.shim, target.logs)}) == {}


def test_the_walk_over_all_processes_is_cheap_enough_for_a_heartbeat(target: UsageTarget) -> None:
    sampler = UsageSampler()
    started = time.process_time()
    sampler.sample({type(KEY)(f"run-{number}", 1): target for number in range(50)})
    assert time.process_time() - started < 1.0
