"""`runyard dev` and the command line, against the real coordinator and the real agent.

The workers are real processes: scripts in the place of the Python interpreter that Dagster's workers have.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.processes import free_port
from harness.waiting import wait_until

from runyard.client import Client, CoordinatorUnreachable
from runyard.v1 import placement_pb2, run_pb2

# Says that it was told to stop, which proves that the stop reached it.
WORKER = """#!/bin/sh
trap 'echo told to stop; exit 3' TERM
echo started
echo to stderr >&2
while [ ! -e "$GATE" ]; do sleep 0.1; done
echo done
"""


class Dev:
    """A `runyard dev` in a process group of its own, as a terminal would give it."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.state = directory / "state"
        self.output = directory / "output"
        self._options = options

    def start(self) -> "Dev":
        command = [sys.executable, "-m", "runyard.cli.main", "dev", "--listen", self.address]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--state", str(self.state), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        return self

    def text(self) -> str:
        return self.output.read_text()

    def wait_ready(self, times: int = 1) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.text()
            return self.text().count("ready. Put this into dagster.yaml") == times

        wait_until(ready, self.text, timeout=60)

    def press_ctrl_c(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(40)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    terminal = Dev(tmp_path, "--slots", "3", "--label", "zone=a")
    yield terminal
    (tmp_path / "gate").touch()  # lets go of a worker that a failed test left
    if terminal.process.poll() is None:
        terminal.process.terminate()
        terminal.process.wait(40)


@pytest.fixture
def runyard(dev: Dev) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in a process of its own, against the coordinator of `dev`."""

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runyard.cli.main", *argv],
            env={**os.environ, "RUNYARD_ADDRESS": dev.address},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


Runyard = Callable[..., subprocess.CompletedProcess[str]]


def launch(dev: Dev, directory: Path) -> str:
    """Launches a run whose worker waits for the file `gate` in `directory`."""
    script = directory / "worker.sh"
    script.write_text(WORKER)
    script.chmod(0o755)
    spec = run_pb2.LaunchSpec(
        run_id=str(uuid.uuid4()),
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        worker_args="{}",
        deployment="test",
        environment={"GATE": str(directory / "gate")},
        code_origin=run_pb2.CodeOrigin(job="orders", executable=str(script)),
        requirements=placement_pb2.Requirements(labels=["zone=a"]),
    )
    with Client(dev.address) as client:
        return client.launch_run(spec).run_id


def shown(runyard: Runyard, run_id: str) -> dict[str, Any]:
    ended = runyard("run", "show", run_id, "-o", "json")
    assert ended.returncode == 0, ended.stderr
    run: dict[str, Any] = json.loads(ended.stdout)["run"]
    return run


def test_runs_go_on_while_dev_is_stopped_and_started_again(
    dev: Dev, runyard: Runyard, tmp_path: Path
) -> None:
    dev.start().wait_ready()
    run_id = launch(dev, tmp_path)
    with Client(dev.address) as client:
        wait_until(lambda: client.get_run(run_id).run.phase == run_pb2.PHASE_RUNNING, dev.text)
    assert "1 of 1 nodes ready, 2 of 3 slots free" in runyard("doctor").stdout
    assert dev.press_ctrl_c() == 0
    assert "1 runs go on by themselves" in dev.text()

    dev.start().wait_ready(times=2)
    logs = runyard("run", "logs", run_id)
    assert (logs.stdout, logs.stderr) == ("started\n", "to stderr\n")
    (tmp_path / "gate").touch()
    followed = runyard("run", "logs", run_id[:8], "-f", "--stream", "stdout")
    assert (followed.returncode, followed.stdout) == (0, "started\ndone\n")
    with Client(dev.address) as client:
        wait_until(lambda: client.get_run(run_id).run.phase == run_pb2.PHASE_FINISHED, dev.text)
    assert shown(runyard, run_id)["outcome"]["kind"] == "succeeded"
    assert dev.press_ctrl_c() == 0
    assert "Traceback" not in dev.text()


def test_a_stop_from_the_command_line_reaches_the_worker(dev: Dev, runyard: Runyard, tmp_path: Path) -> None:
    dev.start().wait_ready()
    run_id = launch(dev, tmp_path)
    wait_until(lambda: "started" in runyard("run", "logs", run_id).stdout, dev.text)
    stopped = runyard("run", "stop", run_id[:8], "--wait", "--reason", "enough")
    assert (stopped.returncode, stopped.stdout) == (0, f"run {run_id} is over: stopped\n")
    assert runyard("run", "logs", run_id, "--tail", "1", "--stream", "stdout").stdout == "told to stop\n"
    run = shown(runyard, run_id)
    assert run["outcome"]["exit_code"] == 3
    (line,) = runyard("run", "list", "--phase", "finished", "--node", "dev").stdout.splitlines()[1:]
    assert line.split()[:6] == [run_id[:8], "orders", "default", "dev", "0", "stopped"]


def test_a_node_is_cordoned_and_drained_from_the_command_line(
    dev: Dev, runyard: Runyard, tmp_path: Path
) -> None:
    dev.start().wait_ready()
    assert runyard("node", "cordon", "dev").stdout == "node dev is cordoned; 0 live runs there\n"
    run_id = launch(dev, tmp_path)
    assert shown(runyard, run_id)["phase"] == "queued"
    assert "ready (cordoned)" in runyard("node", "list").stdout
    runyard("node", "uncordon", "dev")
    wait_until(lambda: "started" in runyard("run", "logs", run_id).stdout, dev.text)
    fenced = runyard("node", "fence", "dev", "--confirm", "--reason", "it looked dead")
    assert (fenced.returncode, "is in session" in fenced.stderr) == (1, True)
    drained = runyard("node", "drain", "dev", "--deadline", "0.5s", "--wait")
    assert (drained.returncode, drained.stdout) == (0, "node dev is drained: no run is left there\n")
    run = shown(runyard, run_id)
    assert (run["outcome"]["kind"], run["outcome"]["exit_code"]) == ("stopped", 3)


def test_dev_ends_as_the_first_of_its_children_to_die(dev: Dev) -> None:
    dev.start().wait_ready()
    children = subprocess.run(
        ["pgrep", "-P", str(dev.process.pid), "-f", "runyard.agent"],
        capture_output=True,
        text=True,
        check=True,
    )
    os.kill(int(children.stdout), signal.SIGKILL)
    assert dev.process.wait(40) == 128 + signal.SIGKILL
    assert "the agent ended with exit code 137; stopping" in dev.text()
    with pytest.raises(CoordinatorUnreachable), Client(dev.address) as client:
        client.check_health()


def test_dev_on_a_port_that_is_taken_ends_and_says_why(dev: Dev) -> None:
    with socket.create_server(("127.0.0.1", int(dev.address.rsplit(":", 1)[1]))):
        code = dev.start().process.wait(40)
    assert code == 1
    assert "cannot listen" in dev.text()


def test_dev_stays_on_this_machine(dev: Dev) -> None:
    dev.address = "0.0.0.0:7171"
    assert dev.start().process.wait(40) == 2
    assert "will not listen on 0.0.0.0:7171" in dev.text()
