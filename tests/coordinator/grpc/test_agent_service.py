"""AgentService over real gRPC: sessions that begin, supersede each other, break, and end in order."""

import asyncio
from pathlib import Path

import grpc
import pytest
from coordinator.fleet_building import finished, make_hello, running, starting
from coordinator.serving import RUN_ID, SOON, Serving, StubAgent, make_spec, refusal, run_id, serving
from harness.waiting import await_until

from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.runtime import outbox
from runyard.v1 import agent_pb2, fleet_pb2, run_pb2

Status = grpc.StatusCode


async def test_welcome_is_the_first_answer_and_gives_the_rhythm(coordinator: Serving) -> None:
    agent = await coordinator.knock(make_hello())
    welcome = await agent.welcome()
    assert (welcome.node_epoch, welcome.protocol) == (1, 1)
    assert (welcome.heartbeat_interval.ToSeconds(), welcome.lease.ToSeconds()) == (5, 15)


async def test_epoch_counts_on_after_a_restart(tmp_path: Path) -> None:
    epochs = []
    for _ in range(2):
        async with serving(tmp_path / "state") as coordinator:
            for _ in range(2):
                epochs.append((await (await coordinator.knock()).welcome()).node_epoch)
    assert epochs == [1, 2, 3, 4]


async def test_second_agent_under_one_node_id_is_ALREADY_EXISTS(
    coordinator: Serving, agent: StubAgent
) -> None:
    intruder = await coordinator.knock(make_hello(installation="another"))
    code, text = await refusal(intruder.call.read())
    assert code == Status.ALREADY_EXISTS
    assert "node ID 'node-a' is in use by a live agent" in text
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=1))
    assert (await agent.expect("heartbeat_ack")).sequence == 1


async def test_agent_without_a_common_protocol_is_FAILED_PRECONDITION(coordinator: Serving) -> None:
    agent = await coordinator.knock(make_hello(protocol=(2, 3)))
    code, text = await refusal(agent.call.read())
    assert code == Status.FAILED_PRECONDITION
    assert "upgrade the older of the two" in text


async def test_superseded_session_gets_a_goodbye_and_its_end_does_not_harm_the_new_one(
    coordinator: Serving, agent: StubAgent
) -> None:
    second = await coordinator.join()
    goodbye = await agent.expect("goodbye")
    assert goodbye.reason == "superseded by a new session of the same agent"
    assert goodbye.redial_within.ToMilliseconds() > 0
    assert await agent.read() is None
    await second.send(heartbeat=agent_pb2.Heartbeat(sequence=4))
    assert (await second.expect("heartbeat_ack")).sequence == 4
    await coordinator.until_node(fleet_pb2.NODE_STATE_READY)


@pytest.mark.parametrize("how", ["goodbye", "half-closed", "vanished"])
async def test_end_of_a_session_however_it_comes_makes_the_node_suspect(
    coordinator: Serving, agent: StubAgent, how: str
) -> None:
    match how:
        case "goodbye":
            await agent.send(goodbye=agent_pb2.AgentGoodbye(reason="restart"))
            assert await agent.read() is None
        case "half-closed":
            await agent.call.done_writing()
            assert await agent.read() is None
        case _:
            agent.vanish()
    await coordinator.until_node(fleet_pb2.NODE_STATE_SUSPECT)


async def test_silent_node_becomes_unreachable_and_is_ready_again_when_it_is_back(tmp_path: Path) -> None:
    leases = LeaseSettings(shortest_interval=0.1, shortest_lease=0.3, recovery=0.0)
    async with serving(tmp_path / "state", leases=leases) as coordinator:
        agent = await coordinator.join()
        await coordinator.launched()
        await agent.expect("assign")
        await agent.report(running(RUN_ID))
        await coordinator.until_node(fleet_pb2.NODE_STATE_UNREACHABLE)
        assert "nothing heard for 0.3 s" in (await agent.expect("goodbye")).reason
        run = (await coordinator.get()).run
        assert (run.phase, run.unreachable) == (run_pb2.PHASE_RUNNING, True)
        await coordinator.join(make_hello(slots=8, attempts=[running(RUN_ID)]))
        assert not (await coordinator.get()).run.unreachable


async def test_end_is_acknowledged_when_it_is_on_disk(
    coordinator: Serving, agent: StubAgent, tmp_path: Path
) -> None:
    await coordinator.launched()
    await agent.expect("assign")
    await agent.report(finished(RUN_ID))
    ack = await agent.expect("report_ack")
    assert (ack.run_id, ack.attempt) == (RUN_ID, 0)
    account = await coordinator.runtime.in_writer(lambda: coordinator.runtime.store.load(0.0))
    assert [type(run.phase).__name__ for run in account.runs] == ["Finished"]


async def test_refused_assignment_goes_to_another_node(coordinator: Serving) -> None:
    first = await coordinator.join(make_hello("node-a"))
    second = await coordinator.join(make_hello("node-b"))
    await coordinator.launched()
    await first.expect("assign")
    await first.reject(RUN_ID, reason="disk full")
    assert (await second.expect("assign")).attempt == 1
    run = (await coordinator.get()).run
    assert (run.attempt, run.node, run.phase) == (1, "node-b", run_pb2.PHASE_ASSIGNED)


async def test_heartbeat_repeats_an_assignment_that_was_lost(
    coordinator: Serving, agent: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runyard.coordinator.core.events.on_session.REPEAT_AFTER", 0.0)
    await coordinator.launched()
    first = await agent.expect("assign")
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=1))
    await agent.expect("heartbeat_ack")
    again = await agent.expect("assign")
    assert (again.run_id, again.attempt, again.spec) == (first.run_id, first.attempt, first.spec)
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=2, attempts=[starting(RUN_ID)]))
    await agent.expect("heartbeat_ack")
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=3, attempts=[starting(RUN_ID)]))
    await agent.expect("heartbeat_ack")


async def test_message_from_a_newer_agent_does_not_end_the_session(
    coordinator: Serving, agent: StubAgent
) -> None:
    await agent.send()
    await agent.send(report=agent_pb2.AttemptReport())
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=1))
    await agent.expect("heartbeat_ack")


async def test_agent_that_does_not_read_its_messages_gets_a_goodbye(
    coordinator: Serving, agent: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LIMIT", 5)
    # One step of the event loop with more messages than may wait.
    (box,) = coordinator.runtime._outboxes.values()
    for number in range(10):
        ack = agent_pb2.HeartbeatAck(sequence=number)
        box.put(agent_pb2.SessionResponse(heartbeat_ack=ack))
    for number in range(5):
        assert (await agent.expect("heartbeat_ack")).sequence == number
    assert "does not keep up" in (await agent.expect("goodbye")).reason
    assert await agent.read() is None
    await coordinator.until_node(fleet_pb2.NODE_STATE_SUSPECT)


async def test_agents_that_all_come_at_once_are_all_welcome(coordinator: Serving) -> None:
    agents = [await coordinator.knock(make_hello(f"node-{number}")) for number in range(50)]
    welcomes = await asyncio.gather(*(agent.welcome() for agent in agents))
    assert {welcome.node_epoch for welcome in welcomes} == {1}


async def test_many_launches_at_once_are_spread_over_the_agents(coordinator: Serving) -> None:
    agents = [await coordinator.join(make_hello(f"node-{number}", slots=10)) for number in range(4)]
    runs = await asyncio.gather(*(coordinator.launched(make_spec(run_id(number))) for number in range(1, 41)))
    assert {run.phase for run in runs} == {run_pb2.PHASE_ASSIGNED}
    taken = [(await agent.expect("assign")).run_id for agent in agents for _ in range(10)]
    assert len(set(taken)) == 40


async def test_session_leaves_nothing_behind(coordinator: Serving, agent: StubAgent) -> None:
    agent.vanish()
    boxes = coordinator.runtime._outboxes
    await await_until(lambda: not boxes, lambda: boxes, SOON)
