"""Whatever a coordinator says, an agent goes on, and starts nothing that was not to be started."""

import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.node_side import kill_everything
from harness.folders import remove
from harness.waiting import wait_until
from hypothesis import strategies as st
from security.arbitrary import Wire, wire
from security.hostile import Captive, captured
from security.rounds import fuzz

from runyard.agent.session.session import LONGEST_REDIAL, SHORTEST_BEAT
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.v1 import agent_pb2, run_pb2

SESSION_RESPONSE = agent_pb2.SessionResponse.DESCRIPTOR


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a name that is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="ry-"))
    yield made
    kill_everything(RunDirectories(made / "node"))
    remove(made)


@pytest.fixture
def captive(folder: Path) -> Iterator[Captive]:
    # What is asked for by no executable's name is started by one that does not exist.
    with captured(folder, python=str(folder / "no-such-python"), keep_runs=100) as made:
        yield made


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!{sys.executable} -S\n{script}")
    path.chmod(stat.S_IRWXU)
    return path


def keeps_in_touch(message: Wire) -> bool:
    """Not a goodbye that sends the agent away for longer than a test should take."""
    read = message.read
    if not isinstance(read, agent_pb2.SessionResponse) or not read.HasField("goodbye"):
        return True
    return read.goodbye.redial_within.ToNanoseconds() <= 0


def test_any_message_is_survived(captive: Captive, tmp_path: Path) -> None:
    honest = program(tmp_path / "honest", "")

    def attack(messages: list[Wire]) -> None:
        captive.told([message.data for message in messages])
        captive.assert_unharmed()
        assert not captive.files_outside()

    messages = wire(SESSION_RESPONSE).filter(keeps_in_touch)
    assert fuzz(st.lists(messages, min_size=1, max_size=5), attack, ordinary=5.0)
    end = captive.honest_run(honest)
    assert end.outcome.kind == run_pb2.OUTCOME_KIND_SUCCEEDED


def test_nothing_starts_whose_offer_is_over_or_has_no_sense(captive: Captive, tmp_path: Path) -> None:
    started = tmp_path / "started"
    canary = program(tmp_path / "canary", f"open({str(started)!r}, 'w')")

    def spoilt(message: agent_pb2.Assign, how: int) -> bytes:
        message.spec.code_origin.executable = str(canary)
        match how:
            case 0:
                message.start_within.Clear()
            case 1:
                message.start_within.seconds = max(-(1 << 63), -abs(message.start_within.seconds) - 1)
                message.start_within.nanos = 0
            case 2:
                message.after_heartbeat = (1 << 63) + 1  # was never sent
            case 3:
                message.run_id = "../" + message.run_id
            case _:
                message.spec.kind = 17  # type: ignore[assignment]
        return agent_pb2.SessionResponse(assign=message).SerializeToString()

    def assign_of(message: Wire) -> agent_pb2.Assign:
        read = message.read
        return read if isinstance(read, agent_pb2.Assign) else agent_pb2.Assign(run_id="run-a", attempt=1)

    offers = st.builds(spoilt, wire(agent_pb2.Assign.DESCRIPTOR).map(assign_of), st.integers(0, 4))

    def attack(messages: list[bytes]) -> None:
        captive.told(messages)
        captive.assert_unharmed()

    assert fuzz(st.lists(offers, min_size=1, max_size=5), attack, ordinary=3.0)
    assert not started.exists()
    assert captive.honest_run(canary).outcome.kind == run_pb2.OUTCOME_KIND_SUCCEEDED
    assert started.exists()  # so it would have been seen


def test_bytes_that_are_no_message_end_the_session_and_not_the_contact(captive: Captive) -> None:
    before = captive.coordinator.sessions
    captive.coordinator.say(b"\x17~@e\xc6")
    wait_until(lambda: captive.coordinator.sessions > before, captive.agent.log)
    assert "sent bytes that are not a message" in captive.agent.log()


def test_a_goodbye_for_ever_is_not_obeyed(captive: Captive) -> None:
    goodbye = agent_pb2.CoordinatorGoodbye(reason="and never come back")
    goodbye.redial_within.seconds = (1 << 63) - 1
    captive.coordinator.say(agent_pb2.SessionResponse(goodbye=goodbye).SerializeToString())
    wait_until(lambda: "never come back" in captive.agent.log(), captive.agent.log)
    asked = wait_until(lambda: re.search(r"pause_asked=([0-9.]+)", captive.agent.log()), captive.agent.log)
    assert float(asked[1]) <= LONGEST_REDIAL


def test_heartbeats_without_a_pause_are_not_sent(folder: Path) -> None:
    with captured(folder, beat=0.0) as captive:
        began, before = time.monotonic(), captive.beats()
        wait_until(lambda: captive.beats() > before + 20, captive.agent.log)
        rate = (captive.beats() - before) / (time.monotonic() - began)
        assert rate <= 1.5 / SHORTEST_BEAT
