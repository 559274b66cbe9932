"""An attempt whose run directory is deleted under it ends, once its worker is proven over."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

from agent.node_side import KEY, Gate, Node, shell
from harness.waiting import await_until, wait_until
from structlog.testing import capture_logs

from runyard.agent.core.model import Finished, OutcomeKind
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import SpecRecord

EXIT_UNKNOWN = (OutcomeKind.EXIT_UNKNOWN, "the run directory was deleted")


def waiting_for(gate: Gate) -> SpecRecord:
    return shell(f"until [ -e {gate.path} ]; do sleep 0.02; done")


async def test_a_worker_that_ends_without_its_run_directory_has_an_unknown_exit(
    node: Node, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    directory = await node.start(waiting_for(gate))
    await node.running()
    shutil.rmtree(directory.path)
    gate.open()
    outcome = await node.outcome()
    assert (outcome.kind, outcome.message) == EXIT_UNKNOWN
    assert not directory.path.exists()


async def test_while_shim_or_worker_lives_the_deletion_is_logged_once_and_not_an_outcome(
    node: Node, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    directory = await node.start(waiting_for(gate))
    worker = await node.running()
    supervisor = node.driver._supervisor_of(KEY)
    assert supervisor is not None
    with capture_logs() as logs:
        shutil.rmtree(directory.path)
        for _ in range(3):  # the shim lives
            supervisor.wake()
            await asyncio.sleep(0.1)
        os.kill(worker.shim_pid, signal.SIGKILL)
        wait_until(lambda: procfs.read_stat(worker.shim_pid) is None, "the shim lives")
        for _ in range(3):  # the worker lives
            supervisor.wake()
            await asyncio.sleep(0.1)
        assert not any(isinstance(phase, Finished) for phase in node.phases())
        gate.open()
        outcome = await node.outcome()
    assert (outcome.kind, outcome.message) == EXIT_UNKNOWN
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert warnings == ["run_directory_deleted"]


async def test_an_attempt_deleted_before_its_start_ends_and_starts_nothing(
    node: Node, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    directory = node.directories.create(KEY, shell(f"touch {trace}"))
    await node.driver.start(KEY)
    shutil.rmtree(directory.path)
    outcome = await node.outcome()
    assert (outcome.kind, outcome.message) == EXIT_UNKNOWN
    await await_until(lambda: node.driver._supervisor_of(KEY) is None, "the supervision goes on")
    assert not trace.exists()
