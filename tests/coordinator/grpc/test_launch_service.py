"""LaunchService over real gRPC: launches, stops, and views of runs."""

from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from coordinator.fleet_building import as_assigned, finished, make_hello, running, stopping
from coordinator.serving import NO_RECOVERY, RUN_ID, Serving, StubAgent, make_spec, refusal, run_id, serving

from runyard.v1 import agent_pb2, fleet_pb2, launch_pb2, placement_pb2, run_pb2

Status = grpc.StatusCode


async def test_launch_is_answered_with_the_run_and_sent_to_the_agent(
    coordinator: Serving, agent: StubAgent
) -> None:
    run = await coordinator.launched()
    assert (run.run_id, run.attempt, run.phase) == (RUN_ID, 0, run_pb2.PHASE_ASSIGNED)
    assert (run.cluster, run.node, run.job, run.location) == ("default", "node-a", "orders", "shop.py")
    assert run.HasField("launched_at")
    assert run.HasField("assigned_at")
    assign = await agent.expect("assign")
    assert assign.spec == as_assigned(make_spec())


async def test_repeat_of_a_launch_is_answered_with_the_run_as_it_is(
    coordinator: Serving, agent: StubAgent
) -> None:
    await coordinator.launched()
    await agent.report(running(RUN_ID, pid=41))
    await coordinator.until_phase(run_pb2.PHASE_RUNNING)
    assert (await coordinator.launched()).pid == 41


async def test_same_run_with_other_content_is_ALREADY_EXISTS(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    changed = make_spec(worker_args="other")
    code, text = await refusal(coordinator.launched(changed))
    assert code == Status.ALREADY_EXISTS
    assert "a launch cannot be changed" in text


async def test_order_of_tags_and_environment_does_not_make_another_content(
    coordinator: Serving, agent: StubAgent
) -> None:
    names = [f"name-{number}" for number in range(20)]
    there = make_spec(tags=dict.fromkeys(names, "x"), environment=dict.fromkeys(names, "y"))
    back = make_spec(
        tags=dict.fromkeys(reversed(names), "x"), environment=dict.fromkeys(reversed(names), "y")
    )
    await coordinator.launched(there)
    assert (await coordinator.launched(back)).attempt == 0


async def test_a_launch_that_was_signed_again_is_the_same_launch(
    coordinator: Serving, agent: StubAgent
) -> None:
    first = make_spec(signed=run_pb2.SignedLaunch(payload=b"until noon", signature=b"1"))
    again = make_spec(signed=run_pb2.SignedLaunch(payload=b"until one", signature=b"2"))
    await coordinator.launched(first)
    assert (await coordinator.launched(again)).attempt == 0


async def test_launch_that_no_node_could_take_is_FAILED_PRECONDITION(
    coordinator: Serving, agent: StubAgent
) -> None:
    wanted = placement_pb2.Requirements(cluster="nowhere")
    code, text = await refusal(coordinator.launched(make_spec(requirements=wanted)))
    assert (code, text) == (
        Status.FAILED_PRECONDITION,
        "no cluster is named 'nowhere'; known clusters: default",
    )
    assert (await refusal(coordinator.get()))[0] == Status.NOT_FOUND


async def test_resume_while_the_worker_is_alive_is_FAILED_PRECONDITION(
    coordinator: Serving, agent: StubAgent
) -> None:
    await coordinator.launched()
    resume = make_spec(kind=run_pb2.LAUNCH_KIND_RESUME, resume_number=1)
    code, text = await refusal(coordinator.launched(resume))
    assert code == Status.FAILED_PRECONDITION
    assert "is still live on node node-a; stop it first" in text


async def test_resume_after_the_end_is_a_new_attempt(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    await agent.report(finished(RUN_ID, kind=run_pb2.OUTCOME_KIND_FAILED))
    await coordinator.until_phase(run_pb2.PHASE_FINISHED)
    resumed = await coordinator.launched(make_spec(kind=run_pb2.LAUNCH_KIND_RESUME, resume_number=1))
    assert (resumed.attempt, resumed.resume_number, resumed.HasField("outcome")) == (1, 1, False)


async def test_stop_is_sent_to_the_agent_and_shown(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    await agent.expect("assign")
    answer = await coordinator.terminated(reason="ann stopped it")
    assert (answer.stopping, answer.run.phase) == (True, run_pb2.PHASE_STOPPING)
    assert (answer.run.stop_requested, answer.run.message) == (True, "ann stopped it")
    assert (await agent.expect("stop")).reason == "ann stopped it"


async def test_grace_is_half_a_minute_by_default(coordinator: Serving, agent: StubAgent) -> None:
    policies = run_pb2.Policies()
    policies.grace.FromMilliseconds(1_500)
    await coordinator.launched()
    await coordinator.launched(make_spec(run_id(2), policies=policies))
    for run in (RUN_ID, run_id(2)):
        await agent.expect("assign")
        await coordinator.terminated(run)
    assert [(await agent.expect("stop")).grace.ToMilliseconds() for _ in range(2)] == [30_000, 1_500]


async def test_stop_without_a_reason_still_has_one(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    assert (await coordinator.terminated()).run.message == "stopped on request"


async def test_stop_of_a_run_never_seen_is_answered_and_wins_over_a_late_launch(
    coordinator: Serving, agent: StubAgent
) -> None:
    answer = await coordinator.terminated(reason="too late")
    assert (answer.stopping, answer.HasField("run")) == (False, False)
    run = await coordinator.launched()
    assert (run.phase, run.outcome.kind) == (run_pb2.PHASE_FINISHED, run_pb2.OUTCOME_KIND_STOPPED)
    assert run.outcome.message == "stopped before launch: too late"


async def test_stop_of_a_finished_run_changes_nothing(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    await agent.report(finished(RUN_ID))
    before = await coordinator.until_phase(run_pb2.PHASE_FINISHED)
    answer = await coordinator.terminated()
    assert (answer.stopping, answer.run) == (False, before)


async def test_history_has_every_phase_with_its_node(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    await agent.report(running(RUN_ID, pid=41))
    await agent.report(stopping(RUN_ID, pid=41))
    await agent.report(finished(RUN_ID, kind=run_pb2.OUTCOME_KIND_FAILED, message="exited with code 1"))
    await coordinator.until_phase(run_pb2.PHASE_FINISHED)
    events = (await coordinator.get()).events
    assert [(run_pb2.Phase.Name(event.phase), event.node, event.message) for event in events] == [
        ("PHASE_QUEUED", "", "launched"),
        ("PHASE_ASSIGNED", "node-a", "assigned to node-a"),
        ("PHASE_RUNNING", "node-a", "worker runs with pid 41"),
        ("PHASE_STOPPING", "node-a", "the agent stops the worker"),
        ("PHASE_FINISHED", "node-a", "exited with code 1"),
    ]
    times = [event.at.ToNanoseconds() for event in events]
    assert times == sorted(times)


async def test_outcome_is_reported_completely(coordinator: Serving, agent: StubAgent) -> None:
    outcome = run_pb2.Outcome(
        kind=run_pb2.OUTCOME_KIND_OOM_KILLED,
        signal=9,
        message="killed for want of memory",
        stderr_tail="MemoryError\n",
        peak_rss_bytes=2**33,
    )
    await coordinator.launched()
    await agent.report(
        agent_pb2.AttemptStatus(run_id=RUN_ID, phase=run_pb2.PHASE_FINISHED, outcome=outcome, pid=41)
    )
    assert (await coordinator.until_phase(run_pb2.PHASE_FINISHED)).outcome == outcome


async def test_run_of_a_silent_node_is_shown_as_unreachable(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    await agent.report(running(RUN_ID))
    await coordinator.until_phase(run_pb2.PHASE_RUNNING)
    agent.vanish()
    await coordinator.until_node(fleet_pb2.NODE_STATE_SUSPECT)
    run = (await coordinator.get()).run
    assert (run.phase, run.unreachable) == (run_pb2.PHASE_RUNNING, True)
    assert run.message == "node node-a is silent; the worker is not presumed dead"


async def test_usage_of_the_worker_is_shown_while_it_lives(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    usage = run_pb2.WorkerUsage(cpu_cores=1.5, rss_bytes=10, peak_rss_bytes=20)
    told = running(RUN_ID)
    told.usage.CopyFrom(usage)
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=1, attempts=[told]))
    await coordinator.until_phase(run_pb2.PHASE_RUNNING)
    assert (await coordinator.get()).run.usage == usage


async def test_unknown_run_is_UNAVAILABLE_while_a_node_may_still_bring_it_then_NOT_FOUND(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "state", leases=replace(NO_RECOVERY, recovery=60.0)) as coordinator:
        code, text = await refusal(coordinator.get())
        assert code == Status.UNAVAILABLE
        assert "has just started and nodes are reconnecting" in text
        await coordinator.join(make_hello(attempts=[running(RUN_ID)]))
        assert (await coordinator.get()).run.phase == run_pb2.PHASE_RUNNING
    async with serving(tmp_path / "other") as coordinator:
        code, text = await refusal(coordinator.get())
        assert code == Status.NOT_FOUND
        assert RUN_ID in text


async def test_logs_of_an_unknown_run_are_UNAVAILABLE_during_recovery_too(tmp_path: Path) -> None:
    async with serving(tmp_path / "state", leases=replace(NO_RECOVERY, recovery=60.0)) as coordinator:
        request = launch_pb2.ReadLogsRequest(run_id=RUN_ID, stream=launch_pb2.LOG_STREAM_STDOUT)
        code, _ = await refusal(coordinator.launch.ReadLogs(request).read())
        assert code == Status.UNAVAILABLE


@pytest.mark.parametrize("size", [100_000, 3_000_000])
async def test_large_launch_arrives_whole(coordinator: Serving, agent: StubAgent, size: int) -> None:
    spec = make_spec(worker_args="x" * size)
    await coordinator.launched(spec)
    assert (await agent.expect("assign")).spec == as_assigned(spec)
