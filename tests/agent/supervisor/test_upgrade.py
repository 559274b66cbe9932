"""A fork server and its shims outlive an upgrade that replaces Runyard's files under them."""

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from agent.node_side import KEY, Node, is_alive, kill_everything, shell
from harness.waiting import await_until

import runyard.agent.supervisor
from runyard.agent.core.model import AttemptKey
from runyard.agent.supervisor import worker as worker_script
from runyard.agent.supervisor.records import SpecRecord, StopRequest, WorkerRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory
from runyard.agent.supervisor.warm.plan import WarmPlan

_SERVE = """
import runpy, sys
sys.path.insert(0, sys.argv[2])
runpy.run_module("runyard.agent.supervisor.forkserver", run_name="__main__")
"""


@dataclass
class CopiedForkServer:
    """A fork server that runs from a copy of the package, which a test may delete."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    package: Path
    directories: RunDirectories
    _received: list[dict[str, Any]] = field(default_factory=list)

    async def start(self, script: str, key: AttemptKey) -> tuple[RunDirectory, WorkerRecord]:
        directory = self.directories.create(key, shell(script))
        self.send({"start": str(directory.path)})
        return directory, await await_until(directory.read_worker, "no worker")

    def send(self, request: dict[str, str]) -> None:
        self.socket.send(json.dumps(request).encode())

    def messages(self) -> list[dict[str, Any]]:
        """Everything that the fork server and its children have sent so far."""
        try:
            while datagram := self.socket.recv(65536, socket.MSG_DONTWAIT):
                self._received.append(json.loads(datagram))
        except BlockingIOError:
            pass
        return self._received

    def heard(self) -> str:
        """A description for failed waits."""
        return str(self.messages())


@pytest.fixture
def forks(tmp_path: Path, directories: RunDirectories) -> Iterator[CopiedForkServer]:
    site = tmp_path / "site"
    package = site / "runyard" / "agent"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    [source] = runyard.agent.supervisor.__path__
    shutil.copytree(source, package / "supervisor", ignore=shutil.ignore_patterns("__pycache__"))
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        # Without site packages the interpreter finds no other Runyard.
        command = [sys.executable, "-I", "-S", "-B", "-c", _SERVE, str(its.fileno()), str(site)]
        process = subprocess.Popen(command, pass_fds=[its.fileno()], start_new_session=True)
    yield CopiedForkServer(process, ours, package, directories)
    ours.close()
    kill_everything(directories)
    process.wait(timeout=30)


async def test_ends_are_recorded_after_the_files_of_the_fork_server_are_gone(forks: CopiedForkServer) -> None:
    watched, _ = await forks.start("sleep 60", AttemptKey("run-w", 1))
    orphaned, worker = await forks.start("sleep 60", AttemptKey("run-o", 1))
    shutil.rmtree(forks.package)

    os.kill(worker.shim_pid, signal.SIGKILL)
    await await_until(lambda: not is_alive(worker.shim_pid), "the shim lives")
    os.kill(worker.pid, signal.SIGTERM)
    exit_record = await await_until(orphaned.read_exit, "the fork server recorded no end")
    assert (exit_record.cause, exit_record.signal) == ("signaled", signal.SIGTERM)

    watched_worker = watched.read_worker()
    assert watched_worker is not None
    os.kill(watched_worker.pid, signal.SIGTERM)
    exit_record = await await_until(watched.read_exit, "the shim recorded no end")
    assert (exit_record.cause, exit_record.signal) == ("signaled", signal.SIGTERM)


async def test_a_stop_is_obeyed_after_the_files_of_the_shim_are_gone(forks: CopiedForkServer) -> None:
    directory, worker = await forks.start("trap '' TERM; while :; do sleep 0.1; done", KEY)
    shutil.rmtree(forks.package)
    directory.request_stop(StopRequest(0.2, "upgrade", requested_at=0.0))
    os.kill(worker.shim_pid, signal.SIGTERM)
    exit_record = await await_until(directory.read_exit, "the shim recorded no end")
    assert (exit_record.cause, exit_record.signal) == ("stopped", signal.SIGKILL)


async def test_a_shim_is_forked_after_the_files_of_the_fork_server_are_gone(forks: CopiedForkServer) -> None:
    await forks.start("exit 0", KEY)
    shutil.rmtree(forks.package)
    directory, _ = await forks.start("exit 3", AttemptKey("run-later", 1))
    exit_record = await await_until(directory.read_exit, "the shim recorded no end")
    assert (exit_record.cause, exit_record.code) == ("exited", 3)


async def test_a_fork_server_without_files_still_ends_when_its_agent_and_its_children_are_gone(
    forks: CopiedForkServer,
) -> None:
    directory, worker = await forks.start("sleep 60", KEY)
    shutil.rmtree(forks.package)
    forks.socket.close()
    os.kill(worker.pid, signal.SIGTERM)
    await await_until(directory.read_exit, "the shim recorded no end")
    await await_until(lambda: forks.process.poll() is not None, "the fork server stays")


async def test_a_run_for_a_warm_server_whose_files_are_gone_still_starts(
    forks: CopiedForkServer, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os\nos._exit(5)\n")
    plan = WarmPlan(sys.executable, str(script), str(tmp_path), {"PATH": os.environ["PATH"]}, ("json",))
    home = tmp_path / "home"
    home.mkdir()
    (home / "plan").write_bytes(plan.encode())
    forks.send({"open": "server-1", "home": str(home)})
    await await_until(lambda: any("ready" in message for message in forks.messages()), forks.heard)
    shutil.rmtree(forks.package)

    spec = SpecRecord([plan.python, plan.script], dict(plan.env), cwd=plan.cwd)
    directory = forks.directories.create(KEY, spec)
    forks.send({"start": str(directory.path), "warm": "server-1"})
    exit_record = await await_until(directory.read_exit, forks.heard)
    assert (exit_record.cause, exit_record.code) == ("exited", 5)
    # The server notices that its own files have changed, so the fork server starts the run cold.
    assert any("refused" in message for message in forks.messages())


def test_no_module_that_runs_beside_a_worker_imports_another_one_late() -> None:
    [folder] = runyard.agent.supervisor.__path__
    for path in Path(folder).rglob("*.py"):
        if path.name == "boot.py":  # a warm server starts there, and imports everything else at once
            continue
        tree = ast.parse(path.read_text())
        at_top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in at_top:
                assert not (node.module or "").startswith("runyard"), f"{path}:{node.lineno}"


@pytest.mark.parametrize("old", ["runyard/agent/worker.py", "runyard/agent/supervisor/worker.py"])
async def test_an_attempt_accepted_before_an_upgrade_starts_with_the_worker_script_of_the_new_release(
    directories: RunDirectories, tmp_path: Path, old: str
) -> None:
    spec = SpecRecord([sys.executable, str(tmp_path / old), "execute_run", KEY.run_id], {})
    directory = directories.create(KEY, spec)
    await Node(directories).driver.recover()
    found = directory.read_spec()
    assert found is not None
    assert found.argv == [sys.executable, worker_script.__file__, "execute_run", KEY.run_id]


async def test_any_other_program_of_an_attempt_stays_as_it_is(
    directories: RunDirectories, tmp_path: Path
) -> None:
    script = tmp_path / "runyard" / "agent" / "worker.py"
    script.parent.mkdir(parents=True)
    script.touch()
    for number, path in enumerate((script, tmp_path / "own" / "worker.py")):
        key = AttemptKey("run-other", number)
        directory = directories.create(key, SpecRecord([sys.executable, str(path)], {}))
        await Node(directories).driver.recover()
        found = directory.read_spec()
        assert found is not None
        assert found.argv == [sys.executable, str(path)]
