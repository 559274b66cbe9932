"""The agent as a process in session with a real coordinator: either is killed, stopped or frozen."""

import shutil
import signal
from collections.abc import Iterator

import pytest
from agent.node_side import is_alive
from agent.small_workers import Plant
from harness.services import Service, open_cluster
from harness.waiting import wait_until

from runyard.client import Client, RunNotFound
from runyard.v1 import fleet_pb2, launch_pb2, run_pb2

STDOUT, STDERR = launch_pb2.LOG_STREAM_STDOUT, launch_pb2.LOG_STREAM_STDERR
SUCCEEDED = run_pb2.OUTCOME_KIND_SUCCEEDED


@pytest.fixture
def plant() -> Iterator[Plant]:
    """Nothing runs yet."""
    with open_cluster() as cluster:
        made = Plant(cluster)
        yield made
        made.close()


@pytest.fixture(scope="module")
def quiet() -> Iterator[Plant]:
    """A coordinator and an agent to which nothing bad happens."""
    with open_cluster() as cluster:
        made = Plant(cluster)
        made.start_coordinator()
        made.start_agent(slots=20)
        yield made
        made.close()


def wait_for_end(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), f"process {pid} lives on")


def read(plant: Plant, number: int, **how: object) -> tuple[int, bytes]:
    """The offset at which a log begins, and its content."""
    with Client(plant.cluster.address) as client:
        pieces = list(client.read_logs(plant.run_id(number), stream=STDOUT, timeout=20.0, **how))  # type: ignore[arg-type]
    return pieces[0].offset, b"".join(piece.data for piece in pieces)


# In quiet times


def test_worker_is_started_followed_and_its_end_told(quiet: Plant) -> None:
    run = quiet.launch_busy(1)
    assert (run.node, [run.pid]) == ("node-a", quiet.starts(1))
    quiet.open_gate(1)
    outcome = quiet.outcome(1)
    assert (outcome.kind, outcome.exit_code) == (SUCCEEDED, 0)


def test_worker_that_fails_is_told_with_its_last_words(quiet: Plant) -> None:
    quiet.launch(2, "echo 'no such table' >&2; exit 3")
    outcome = quiet.outcome(2)
    assert (outcome.kind, outcome.exit_code) == (run_pb2.OUTCOME_KIND_FAILED, 3)
    assert outcome.stderr_tail == "no such table\n"


def test_interpreter_that_is_not_there_is_a_failure_to_start(quiet: Plant) -> None:
    quiet.launch(3, executable="/nowhere/python")
    outcome = quiet.outcome(3)
    assert outcome.kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert "/nowhere/python" in outcome.message


def test_stop_ends_the_worker(quiet: Plant) -> None:
    run = quiet.launch_busy(4)
    with Client(quiet.cluster.address) as client:
        client.terminate_run(quiet.run_id(4), reason="a user stopped it")
    outcome = quiet.outcome(4)
    assert (outcome.kind, outcome.message) == (run_pb2.OUTCOME_KIND_STOPPED, "a user stopped it")
    assert not is_alive(run.pid)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, (0, b"0123456789")),
        ({"offset": 4}, (4, b"456789")),
        ({"offset": -3}, (7, b"789")),
        ({"offset": 2, "limit": 3}, (2, b"234")),
        ({"offset": 10}, (10, b"")),
        ({"follow": True, "limit": 4}, (0, b"0123")),
    ],
    ids=["whole", "offset", "from the end", "limit", "at the end", "follow up to a limit"],
)
def test_log_of_a_live_worker_is_read_by(
    quiet: Plant, how: dict[str, object], expected: tuple[int, bytes]
) -> None:
    if not quiet.starts(5):
        quiet.launch_busy(5, "printf 0123456789; : > $0.wrote")
    assert read(quiet, 5, **how) == expected


def test_log_that_is_followed_ends_with_its_worker_and_is_whole(quiet: Plant) -> None:
    count = 3_000
    quiet.launch_busy(6, f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); done")
    with Client(quiet.cluster.address) as client:
        pieces = client.read_logs(quiet.run_id(6), stream=STDOUT, follow=True, timeout=30.0)
        seen = b""
        while f"line {count - 1}\n".encode() not in seen:
            seen += next(pieces).data
        quiet.open_gate(6)
        seen += b"".join(piece.data for piece in pieces)
    assert seen.decode().splitlines() == [f"line {number}" for number in range(count)]


def test_log_is_there_after_the_end_too(quiet: Plant) -> None:
    quiet.launch(7, "echo out; echo err >&2; exit 0")
    quiet.outcome(7)
    assert read(quiet, 7) == (0, b"out\n")
    with Client(quiet.cluster.address) as client:
        pieces = client.read_logs(quiet.run_id(7), stream=STDERR, follow=True, timeout=20.0)
        assert b"".join(piece.data for piece in pieces) == b"err\n"


def test_log_that_was_cleaned_up_is_not_found(quiet: Plant) -> None:
    quiet.launch(8, "exit 0")
    quiet.outcome(8)
    (quiet.folder / "node-a" / "runs" / quiet.run_id(8)).rename(quiet.folder / "cleaned-up")
    with pytest.raises(RunNotFound, match="cleaned up, or the attempt was never here"):
        read(quiet, 8)


# The coordinator goes and comes back


def test_agent_comes_back_to_a_killed_coordinator_with_its_worker_unharmed(plant: Plant) -> None:
    coordinator = plant.start_coordinator()
    agent = plant.start_agent()
    before = plant.launch_busy()
    coordinator.kill()
    plant.start_coordinator()
    agent.wait_for_event("ready", times=2)
    after = plant.until_phase(run_pb2.PHASE_RUNNING)
    assert (after.attempt, after.pid, plant.starts()) == (before.attempt, before.pid, [before.pid])
    assert [event["epoch"] for event in agent.events("ready")] == [1, 2]
    plant.open_gate()
    assert plant.outcome().kind == SUCCEEDED


def test_end_that_came_while_the_coordinator_was_dead_is_told_when_it_is_back(plant: Plant) -> None:
    coordinator = plant.start_coordinator()
    plant.start_agent()
    run = plant.launch_busy()
    coordinator.kill()
    plant.open_gate()
    wait_for_end(run.pid)
    plant.start_coordinator()
    assert plant.outcome().kind == SUCCEEDED
    assert plant.starts() == [run.pid]


def test_coordinator_that_lost_everything_adopts_what_the_agent_holds(plant: Plant) -> None:
    coordinator = plant.start_coordinator()
    plant.start_agent()
    before = plant.launch_busy()
    coordinator.kill()
    shutil.rmtree(plant.folder / "coordinator")
    plant.start_coordinator()
    after = plant.until_phase(run_pb2.PHASE_RUNNING)
    assert (after.pid, after.deployment, after.job, after.location) == (
        before.pid,
        "shop",
        "orders",
        "shop.py",
    )
    plant.open_gate()
    assert plant.outcome().kind == SUCCEEDED


def test_agent_waits_for_a_coordinator_that_is_not_there_yet(plant: Plant) -> None:
    agent = plant.cluster.agent()
    agent.wait_for_event("session_ended")
    plant.start_coordinator()
    agent.wait_for_event("ready")


def test_frozen_coordinator_is_given_up_and_found_again_when_it_thaws(plant: Plant) -> None:
    coordinator = plant.start_coordinator()
    agent = plant.start_agent()
    before = plant.launch_busy()
    coordinator.signal(signal.SIGSTOP)
    agent.wait_for_event("session_ended")
    assert agent.events("session_ended")[0]["how"] == "no heartbeat was acknowledged for 1.5 s"
    coordinator.signal(signal.SIGCONT)
    agent.wait_for_event("ready", times=2)
    after = plant.until_phase(run_pb2.PHASE_RUNNING)
    assert (after.pid, after.attempt, plant.starts()) == (before.pid, before.attempt, [before.pid])


def test_coordinator_that_says_goodbye_is_found_again(plant: Plant) -> None:
    coordinator = plant.start_coordinator()
    agent = plant.start_agent()
    assert coordinator.terminate() == 0
    agent.wait_for_event("session_ended")
    assert "the coordinator says goodbye" in agent.events("session_ended")[0]["how"]
    plant.start_coordinator()
    agent.wait_for_event("ready", times=2)


# The agent goes and comes back


def test_killed_agent_leaves_its_worker_alone_and_takes_it_up_again(plant: Plant) -> None:
    plant.start_coordinator(recovery=0)
    agent = plant.start_agent()
    run = plant.launch_busy()
    agent.kill()
    plant.until_node(fleet_pb2.NODE_STATE_UNREACHABLE)
    silent = plant.run()
    assert silent is not None
    assert (silent.phase, silent.unreachable) == (run_pb2.PHASE_RUNNING, True)
    assert is_alive(run.pid)
    plant.open_gate()
    wait_for_end(run.pid)
    plant.start_agent()
    outcome = plant.outcome()
    assert (outcome.kind, outcome.exit_code) == (SUCCEEDED, 0)
    assert plant.starts() == [run.pid]


def test_agent_that_is_told_to_stop_says_goodbye_and_leaves_its_worker_alone(plant: Plant) -> None:
    coordinator = plant.start_coordinator()
    agent = plant.start_agent()
    run = plant.launch_busy()
    assert agent.terminate() == 0
    assert coordinator.wait_for_event("agent_says_goodbye")["node"] == "node-a"
    assert is_alive(run.pid)
    plant.start_agent()
    assert plant.until_phase(run_pb2.PHASE_RUNNING).pid == run.pid


@pytest.mark.parametrize("state", ["dead", "frozen", "frozen before the session began"])
def test_agent_that_is_told_to_stop_leaves_soon_though_the_coordinator_does_not_answer(
    plant: Plant, state: str
) -> None:
    coordinator = plant.start_coordinator()
    if state == "frozen before the session began":
        coordinator.signal(signal.SIGSTOP)
        agent = plant.cluster.agent()
        agent.wait_for_event("working")
    else:
        agent = plant.start_agent()
        coordinator.signal(signal.SIGKILL if state == "dead" else signal.SIGSTOP)
    assert agent.terminate(within=6.0) == 0


# Agents that are not wanted


def ended_with(service: Service) -> tuple[int, str]:
    """The exit code of an agent, and the last line that it printed."""
    return service.exit_code(), service.output().splitlines()[-1]


def test_second_agent_with_one_node_id_is_refused_with_the_remedy(plant: Plant) -> None:
    plant.start_coordinator()
    first = plant.start_agent()
    code, said = ended_with(plant.cluster.agent(state="another"))
    assert code == 1
    assert said.startswith("runyard agent: node ID 'node-a' is in use by a live agent on ")
    assert said.endswith("give this agent another node_id")
    assert first.process.poll() is None


def test_second_agent_on_one_state_directory_is_refused_with_the_remedy(plant: Plant) -> None:
    plant.start_coordinator()
    plant.start_agent()
    code, said = ended_with(plant.cluster.agent("node-b", state="node-a"))
    assert code == 1
    assert "is in use by another agent; stop that one first" in said


def test_agent_that_was_welcome_once_does_not_give_up_when_it_is_refused_later(plant: Plant) -> None:
    plant.start_coordinator(recovery=0)
    first = plant.start_agent()
    first.signal(signal.SIGSTOP)
    plant.until_node(fleet_pb2.NODE_STATE_UNREACHABLE)
    second = plant.start_agent(state="another")
    first.signal(signal.SIGCONT)
    assert "in use by a live agent" in first.wait_for_event("refused")["reason"]
    second.terminate()
    first.wait_for_event("ready", times=2)
