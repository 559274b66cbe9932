"""The command line against a fake coordinator (see `fake_coordinator.py`) over loopback sockets."""

import json
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from client.fake_coordinator import STDERR, STDOUT, FakeCoordinator
from waiting import wait_until

from runyard.client.cli import run_logs
from runyard.client.cli.main import main
from runyard.v1 import fleet_pb2, launch_pb2, run_pb2

RUN = "8b1a9953-c461-4296-a827-abf8c47804d7"
SIBLING = "8b1a9953-ffff-4296-a827-abf8c47804d7"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture
def runyard(
    coordinator: FakeCoordinator, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs a command in this process, against the fake."""
    monkeypatch.setenv("RUNYARD_ADDRESS", coordinator.address)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")  # main() sets it, for good

    def run(*argv: str) -> Result:
        capfd.readouterr()
        code = main(list(argv))
        seen = capfd.readouterr()
        return Result(code, seen.out, seen.err)

    return run


@pytest.fixture
def orders(coordinator: FakeCoordinator) -> run_pb2.Run:
    """A finished run that was killed for want of memory."""
    run = run_pb2.Run(
        run_id=RUN,
        attempt=2,
        resume_number=1,
        deployment="shop",
        job="orders",
        location="shop.py",
        phase=run_pb2.PHASE_FINISHED,
        cluster="east",
        node="n1",
        pid=4711,
        outcome=run_pb2.Outcome(
            kind=run_pb2.OUTCOME_KIND_OOM_KILLED,
            signal=9,
            message="killed for want of memory",
            stderr_tail="loading [bold]\nKilled\n",
            peak_rss_bytes=3 * 1024**3,
        ),
    )
    run.launched_at.FromJsonString("2026-03-01T10:00:00Z")
    run.running_at.FromJsonString("2026-03-01T10:00:02.5Z")
    run.finished_at.FromJsonString("2026-03-01T10:05:00Z")
    event = launch_pb2.RunEvent(attempt=2, phase=run_pb2.PHASE_RUNNING, node="n1", message="worker started")
    event.at.FromJsonString("2026-03-01T10:00:02.5Z")
    coordinator.events[RUN] = [event]
    coordinator.put_run(run)
    return run


@pytest.fixture
def node(coordinator: FakeCoordinator) -> fleet_pb2.Node:
    found = fleet_pb2.Node(
        node_id="n1",
        cluster="east",
        state=fleet_pb2.NODE_STATE_READY,
        labels={"zone": "a"},
        drivers=["process"],
        slots=4,
        slots_used=1,
        facts=fleet_pb2.NodeFacts(hostname="host1", agent_version="0.0.1", memory_bytes=2**34),
        load=fleet_pb2.NodeLoad(cpu_fraction=0.25, memory_available_bytes=2**33),
    )
    found.last_heard_at.GetCurrentTime()
    coordinator.nodes.append(found)
    return found


# Lists and details


@pytest.mark.usefixtures("orders")
def test_runs_are_listed_with_state_and_time_to_start(runyard: Command) -> None:
    listed = runyard("run", "list")
    assert listed.code == 0
    header, line = listed.out.splitlines()
    assert header.split() == ["RUN", "JOB", "CLUSTER", "NODE", "ATTEMPT", "STATE", "AGE", "START", "MESSAGE"]
    words = line.split()
    assert words[:6] == ["8b1a9953", "orders", "east", "n1", "2", "oom_killed"]
    assert words[7:] == ["2.5s", "killed", "for", "want", "of", "memory"]


def test_a_listing_can_be_narrowed(
    coordinator: FakeCoordinator, runyard: Command, orders: run_pb2.Run
) -> None:
    coordinator.put_run(run_pb2.Run(run_id=SIBLING, phase=run_pb2.PHASE_RUNNING, cluster="west", node="n2"))
    running = runyard("run", "list", "--phase", "running", "--phase", "starting", "-o", "json").json()
    assert [run["run_id"] for run in running] == [SIBLING]
    east = runyard("run", "list", "--cluster", "east", "--node", "n1", "-o", "json").json()
    assert [run["run_id"] for run in east] == [orders.run_id]
    assert len(runyard("run", "list", "--limit", "1", "-o", "json").json()) == 1


def test_live_runs_tell_what_stands_beside_their_phase(
    coordinator: FakeCoordinator, runyard: Command
) -> None:
    coordinator.put_run(
        run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING, unreachable=True, stop_requested=True)
    )
    assert "running (unreachable) (stop asked)" in runyard("run", "list").out


def test_an_empty_list_says_so_to_people_and_is_empty_for_scripts(runyard: Command) -> None:
    assert runyard("run", "list").out == "no runs match\n"
    assert runyard("run", "list", "-o", "json").json() == []
    assert runyard("node", "list").out == "no nodes; start one with `runyard agent`\n"


@pytest.mark.usefixtures("orders")
def test_a_run_is_shown_with_events_and_the_end_of_its_stderr(runyard: Command) -> None:
    shown = runyard("run", "show", RUN)
    assert shown.code == 0
    for part in (
        "orders in shop.py",
        "oom_killed",
        "n1 in cluster east",
        "2 (resume 1)",
        "signal 9",
        "3.0 GiB at most",
        "2026-03-01 10:00:02.500  2        running  n1    worker started",
        "last lines of stderr\nloading [bold]\nKilled\n",
    ):
        assert part in shown.out


@pytest.mark.usefixtures("orders")
def test_json_of_a_run_has_every_field_under_its_proto_name(runyard: Command) -> None:
    shown = runyard("run", "show", RUN, "--output", "json").json()
    assert set(shown) == {"run", "events"}
    run = shown["run"]
    assert set(run) == {field.name for field in run_pb2.Run.DESCRIPTOR.fields}
    assert (run["phase"], run["attempt"], run["stop_requested"]) == ("finished", 2, False)
    assert run["launched_at"] == "2026-03-01T10:00:00Z"
    assert run["assigned_at"] is None
    assert run["usage"] is None
    assert run["outcome"] == {
        "kind": "oom_killed",
        "exit_code": None,
        "signal": 9,
        "message": "killed for want of memory",
        "stderr_tail": "loading [bold]\nKilled\n",
        "peak_rss_bytes": 3221225472,
    }
    assert shown["events"][0]["phase"] == "running"


@pytest.mark.usefixtures("node")
def test_nodes_and_clusters_are_listed_and_shown(runyard: Command) -> None:
    line = runyard("node", "list", "--cluster", "east").out.splitlines()[1]
    assert line.split()[:4] == ["n1", "east", "ready", "1/4"]
    assert "zone=a" in line
    assert "host1" in runyard("node", "show", "n1").out
    (listed,) = runyard("node", "list", "-o", "json").json()
    assert listed == runyard("node", "show", "n1", "-o", "json").json()
    assert (listed["state"], listed["labels"], listed["facts"]["memory_bytes"]) == (
        "ready",
        {"zone": "a"},
        2**34,
    )
    (cluster,) = runyard("cluster", "list", "-o", "json").json()
    assert cluster == {"name": "east", "nodes": 1, "nodes_ready": 1, "slots": 4, "slots_used": 1}
    assert runyard("cluster", "list").out.splitlines()[1].split() == ["east", "1", "1", "4", "1"]


def test_shared_options_stand_before_the_command_or_after_it(
    coordinator: FakeCoordinator, runyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNYARD_ADDRESS")
    before = runyard("--address", coordinator.address, "--output", "json", "run", "list")
    after = runyard("run", "list", "--address", coordinator.address, "--output", "json")
    assert before == after == Result(0, "[]\n", "")


# Runs by the beginning of their ID


@pytest.mark.usefixtures("orders")
def test_a_run_is_found_by_the_beginning_of_its_id(runyard: Command) -> None:
    assert runyard("run", "show", "8B1A99", "-o", "json").json()["run"]["run_id"] == RUN


@pytest.mark.usefixtures("orders")
def test_a_beginning_that_fits_two_runs_names_both(coordinator: FakeCoordinator, runyard: Command) -> None:
    coordinator.put_run(run_pb2.Run(run_id=SIBLING))
    shown = runyard("run", "show", "8b1a9953")
    assert shown.code == 2
    assert shown.err == (f"runyard: run '8b1a9953' could be 2 runs; give more of the ID: {SIBLING}, {RUN}\n")
    assert runyard("run", "show", "8b1a9953-c").code == 0


@pytest.mark.usefixtures("orders")
def test_a_beginning_that_fits_none_or_is_too_short_is_refused(runyard: Command) -> None:
    assert runyard("run", "show", "ffffff").code == 4
    short = runyard("run", "show", "8b1a9")
    assert (short.code, short.err) == (
        2,
        "runyard: run '8b1a9' is too short: give the ID's first 6 characters or more\n",
    )


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


# Stopping


def test_a_stop_returns_when_it_is_durable(coordinator: FakeCoordinator, runyard: Command) -> None:
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING))
    assert runyard("run", "stop", RUN[:8]).out == f"run {RUN} is being stopped\n"
    assert coordinator.runs[RUN].message.startswith("stopped from the command line by ")
    assert coordinator.runs[RUN].stop_requested


def test_a_stop_with_wait_returns_when_the_run_is_over(
    coordinator: FakeCoordinator, runyard: Command
) -> None:
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING))

    def end() -> None:
        wait_until(lambda: coordinator.requests("WatchRuns"), "the command watches")
        outcome = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_STOPPED)
        coordinator.move(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_FINISHED, outcome=outcome))

    ending = threading.Thread(target=end)
    ending.start()
    stopped = runyard("run", "stop", RUN, "--wait", "--reason", "test")
    ending.join()
    assert stopped == Result(0, f"run {RUN} is over: stopped\n", "")


def test_a_stop_that_takes_too_long_has_failed(coordinator: FakeCoordinator, runyard: Command) -> None:
    coordinator.put_run(run_pb2.Run(run_id=RUN, phase=run_pb2.PHASE_RUNNING))
    stopped = runyard("run", "stop", RUN, "--wait", "--timeout", "0.3")
    assert stopped.code == 1
    assert stopped.err == f"runyard: run {RUN} is still stopping after 0.3 s; the stop stays in force\n"


@pytest.mark.usefixtures("orders")
def test_stopping_what_is_over_says_how_it_ended(runyard: Command) -> None:
    assert runyard("run", "stop", RUN) == Result(0, f"run {RUN} is over: oom_killed\n", "")


def test_stopping_an_unknown_run_says_that_it_cannot_start_any_more(runyard: Command) -> None:
    stopped = runyard("run", "stop", RUN)
    assert stopped.code == 4
    assert "should it still be launched, it ends at once" in stopped.err


# How commands end


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["run", "show", RUN], 4, "is not known"),
        (["run", "logs", RUN], 4, "is not known"),
        (["node", "show", "n9"], 4, "never joined"),
        (["run", "list", "--phase", "asleep"], 2, "'asleep' is not one of 'queued'"),
        (["run", "list", "--limit", "0"], 2, "--limit"),
        (["run", "explode"], 2, "explode"),
        (["run", "list", "--address", "localhost"], 2, "address: 'localhost' has no port"),
        (["run", "list", "--address", "10.0.0.1:7171"], 2, "will not dial 10.0.0.1:7171"),
        (["run", "list", "--address", "127.0.0.1:1"], 3, "127.0.0.1:1 cannot be reached: connection refused"),
    ],
)
def test_exit_codes_mean_something(runyard: Command, argv: list[str], code: int, words: str) -> None:
    ended = runyard(*argv)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_a_failure_of_the_coordinator_is_one_line(coordinator: FakeCoordinator, runyard: Command) -> None:
    coordinator.fail("ListRuns", grpc.StatusCode.INTERNAL, "its log says how")
    ended = runyard("run", "list")
    assert ended.code == 1
    assert ended.err == (
        f"runyard: the coordinator at {coordinator.address} failed in ListRuns: its log says how\n"
    )


def test_exit_codes_and_version_are_told(runyard: Command) -> None:
    assert "3 the coordinator cannot be reached" in " ".join(runyard("--help").out.split())
    assert runyard("--version").out.startswith("runyard 0.")


# Daemons


def test_daemons_get_their_arguments_as_they_are(runyard: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def fake_main(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    daemon = types.ModuleType("runyard.coordinator.__main__")
    vars(daemon)["main"] = fake_main
    monkeypatch.setitem(sys.modules, daemon.__name__, daemon)
    assert runyard("coordinator", "--listen", "127.0.0.1:0", "--check", "--help", "-x").code == 7
    assert seen == [["--listen", "127.0.0.1:0", "--check", "--help", "-x"]]


def test_a_daemon_that_is_not_installed_names_the_extra(
    runyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "runyard.agent.__main__", None)
    ended = runyard("agent")
    assert ended.code == 1
    assert ended.err.endswith("Install it with: pip install 'runyard[agent]'\n")


# The process


def started(coordinator: FakeCoordinator, *argv: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "runyard.client.cli.main", *argv],
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


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_without_the_extra_the_command_names_it() -> None:
    ended = python(
        "import sys; sys.modules['typer'] = None\n"
        "from runyard.client.cli.main import main\n"
        "sys.exit(main(['run', 'list']))"
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "runyard: the command line needs typer, which is not installed.\n"
        "Install it with: pip install 'runyard[cli]'\n"
    )


def test_the_library_loads_nothing_of_the_command_line() -> None:
    ended = python(
        "import sys, runyard.client\n"
        "extra = {'typer', 'rich', 'yaml', 'structlog', 'pydantic', 'psutil', 'dagster', 'sqlalchemy'}\n"
        "print(sorted(extra & set(sys.modules)))"
    )
    assert ended.stdout == "[]\n", ended.stderr
