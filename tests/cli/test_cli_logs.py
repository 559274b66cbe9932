"""`runyard run logs`, and how one leaves it, against a fake coordinator (see `fake_coordinator.py`)."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from cli.commands import RUN, Command
from client.fake_coordinator import STDERR, STDOUT, FakeCoordinator
from harness.waiting import wait_until

from runyard.cli.output import run_logs
from runyard.v1 import run_pb2

# Logs


@pytest.fixture
def logged(coordinator: FakeCoordinator, orders: run_pb2.Run) -> None:
    coordinator.logs[RUN, STDOUT] = b"".join(b"out %d\n" % number for number in range(20_000))
    coordinator.logs[RUN, STDERR] = b"err 1\nerr 2 \xff\nno newline"


@pytest.mark.usefixtures("logged")
def test_logs_go_to_the_output_they_came_from(runyard: Command, coordinator: FakeCoordinator) -> None:
    both = runyard("run", "logs", RUN)
    assert both.out.encode() == coordinator.logs[RUN, STDOUT]
    assert both.err.startswith("err 1\nerr 2 ")
    assert both.err.endswith("no newline")
    assert runyard("run", "logs", RUN, "--stream", "stdout").err == ""
    assert runyard("run", "logs", RUN, "--stream", "stderr").out == ""


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_the_last_lines_of_a_log_are_exactly_as_many_as_asked_for(
    runyard: Command, coordinator: FakeCoordinator, follow: list[str]
) -> None:
    tail = runyard("run", "logs", RUN, "--stream", "stdout", "--tail", "2", *follow)
    assert tail.out == "out 19998\nout 19999\n"
    longest = runyard("run", "logs", RUN, "--stream", "stdout", "--tail", "19000", *follow).out
    assert longest.startswith("out 1000\n")
    assert (
        runyard("run", "logs", RUN, "--stream", "stdout", "--tail", "30000", *follow).out.count("\n")
        == 20_000
    )
    assert runyard("run", "logs", RUN, "--tail", "0", *follow).out == ""


def test_long_lines_are_found_whole(
    coordinator: FakeCoordinator, runyard: Command, orders: run_pb2.Run
) -> None:
    coordinator.logs[RUN, STDOUT] = b"first\n" + b"x" * 300_000 + b"\n" + b"y" * 300_000 + b"\n"
    tail = runyard("run", "logs", RUN, "--stream", "stdout", "--tail", "2").out
    assert tail == "x" * 300_000 + "\n" + "y" * 300_000 + "\n"


def test_a_followed_log_goes_on_over_a_restart_of_the_coordinator(
    coordinator: FakeCoordinator, runyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_logs, "_LONGEST_PAUSE_SECONDS", 0.3)
    coordinator.put_run(run_pb2.Run(run_id=RUN, attempt=1, phase=run_pb2.PHASE_RUNNING))
    coordinator.logs[RUN, STDOUT] = b"before\n"

    def restart() -> None:
        wait_until(lambda: coordinator.requests("ReadLogs"), "the log is being read")
        coordinator.stop()
        coordinator.logs[RUN, STDOUT] += b"after\n"
        coordinator.move(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_FINISHED))
        coordinator.start(coordinator.address)

    restarting = threading.Thread(target=restart)
    restarting.start()
    followed = runyard("run", "logs", RUN, "-f", "--stream", "stdout")
    restarting.join()
    assert (followed.code, followed.out) == (0, "before\nafter\n")
    assert "trying again" in followed.err


def started(coordinator: FakeCoordinator, *argv: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "runyard.cli.main", *argv],
        env={**os.environ, "RUNYARD_ADDRESS": coordinator.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def talkative(coordinator: FakeCoordinator) -> None:
    """A live run with more output than a pipe holds."""
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING))
    coordinator.logs[RUN, STDOUT] = b"line\n" * 200_000


@pytest.mark.usefixtures("talkative")
def test_a_reader_that_leaves_ends_the_following_quietly(coordinator: FakeCoordinator) -> None:
    following = started(coordinator, "run", "logs", "-f", RUN)
    assert following.stdout is not None
    assert following.stderr is not None
    assert following.stdout.readline() == b"line\n"
    following.stdout.close()
    assert following.wait(30) == 1
    assert following.stderr.read() == b""
    following.stderr.close()


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("argv", [("run", "logs", "-f", "--tail", "1"), ("run", "stop", "--wait")])
def test_ctrl_c_ends_a_waiting_command_at_once(coordinator: FakeCoordinator, argv: tuple[str, ...]) -> None:
    waiting = started(coordinator, *argv, RUN)
    streams = {"logs": "ReadLogs", "stop": "WatchRuns"}
    wait_until(lambda: coordinator.requests(streams[argv[1]]), lambda: coordinator.calls)
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, err) == (130, b"")
