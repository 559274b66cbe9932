"""A coordinator with a full disk accepts nothing, loses nothing, and recovers without intervention."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from coordinator.fleet_building import finished, make_hello, running
from coordinator.serving import RUN_ID, SOON, Serving, make_spec, refusal, run_id, serving
from coordinator.store.small_disk import fill_up

from runyard.v1 import agent_pb2, fleet_pb2, run_pb2

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def cramped(small_disk: Path) -> AsyncIterator[Serving]:
    """A coordinator on a small disk."""
    async with serving(small_disk / "state") as client:
        yield client


async def test_launch_that_does_not_fit_on_the_disk_is_refused_and_works_when_there_is_room(
    cramped: Serving, small_disk: Path
) -> None:
    agent = await cramped.join()
    await cramped.launched()
    filler = fill_up(small_disk)
    large = make_spec(run_id(2), worker_args="x" * 100_000)
    code, text = await refusal(cramped.launched(large))
    assert (code, text) == (FULL, "the disk of the coordinator's state_directory is full")
    assert (await refusal(cramped.get(run_id(2))))[0] == grpc.StatusCode.NOT_FOUND
    assert (await cramped.get()).run.phase == run_pb2.PHASE_ASSIGNED
    filler.unlink()
    assert (await cramped.launched(large)).attempt == 0
    # The agent never heard of the launch that was refused.
    assert [(await agent.expect("assign")).run_id for _ in range(2)] == [RUN_ID, run_id(2)]


async def test_refused_launch_takes_no_slot(cramped: Serving, small_disk: Path) -> None:
    await cramped.join(make_hello(slots=1))
    filler = fill_up(small_disk)
    await refusal(cramped.launched(make_spec(worker_args="x" * 100_000)))
    filler.unlink()
    assert (await cramped.launched(make_spec(run_id(2)))).phase == run_pb2.PHASE_ASSIGNED


async def test_snapshot_that_does_not_fit_on_the_disk_is_refused(cramped: Serving, small_disk: Path) -> None:
    await cramped.join()
    plain = hashlib.shake_128(b"seed").digest(300_000)
    filler = fill_up(small_disk)
    assert (await refusal(cramped.store_snapshot("s", plain)))[0] == FULL
    filler.unlink()
    await cramped.store_snapshot("s", plain)
    assert (await cramped.launched(make_spec(job_snapshot_id="s"))).run_id == RUN_ID


async def test_end_that_does_not_fit_on_the_disk_is_acknowledged_only_when_there_is_room(
    cramped: Serving, small_disk: Path
) -> None:
    agent = await cramped.join()
    await cramped.launched()
    await agent.expect("assign")
    filler = fill_up(small_disk)
    told = finished(RUN_ID, kind=run_pb2.OUTCOME_KIND_FAILED)
    told.outcome.stderr_tail = "x" * 100_000
    await agent.report(told)
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=1))
    assert (await agent.expect("heartbeat_ack")).sequence == 1
    run = (await cramped.get()).run
    assert run.phase == run_pb2.PHASE_ASSIGNED
    filler.unlink()
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=2, attempts=[told]))
    assert (await agent.expect("heartbeat_ack")).sequence == 2
    assert (await agent.expect("report_ack")).run_id == RUN_ID
    assert (await cramped.get()).run.phase == run_pb2.PHASE_FINISHED


async def test_heartbeats_continue_while_the_disk_is_full(cramped: Serving, small_disk: Path) -> None:
    agent = await cramped.join()
    fill_up(small_disk)
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=1))
    assert (await agent.expect("heartbeat_ack")).sequence == 1


async def test_agent_that_comes_while_the_disk_is_full_is_turned_away_and_not_counted_as_ready(
    cramped: Serving, small_disk: Path
) -> None:
    filler = fill_up(small_disk)
    hello = make_hello(labels={f"label-{number}": "x" * 100 for number in range(1_000)})
    agent = await cramped.knock(hello)
    code, _ = await refusal(agent.call.read())
    assert code == FULL
    nodes = (await cramped.fleet.ListNodes(fleet_pb2.ListNodesRequest(), timeout=SOON)).nodes
    assert fleet_pb2.NODE_STATE_READY not in [node.state for node in nodes]
    filler.unlink()
    assert (await (await cramped.knock(hello)).welcome()).node_epoch >= 1


async def test_stop_that_does_not_fit_on_the_disk_is_not_promised(cramped: Serving, small_disk: Path) -> None:
    agent = await cramped.join()
    await cramped.launched()
    await agent.expect("assign")
    await agent.report(running(RUN_ID))
    await cramped.until_phase(run_pb2.PHASE_RUNNING)
    filler = fill_up(small_disk)
    assert (await refusal(cramped.terminated(reason="x" * 100_000)))[0] == FULL
    assert not (await cramped.get()).run.stop_requested
    filler.unlink()
    assert (await cramped.terminated(reason="now")).stopping
    assert (await agent.expect("stop")).reason == "now"


async def test_health_of_the_account_is_unharmed_by_many_refusals(cramped: Serving, small_disk: Path) -> None:
    await cramped.join()
    filler = fill_up(small_disk)
    for number in range(2, 12):
        await refusal(cramped.launched(make_spec(run_id(number), worker_args="x" * 100_000)))
    filler.unlink()
    await cramped.launched()
    cramped.runtime.fleet.check_invariants()
    account = await cramped.runtime.in_writer(lambda: cramped.runtime.store.load(0.0))
    assert [run.run_id for run in account.runs] == list(cramped.runtime.fleet.runs) == [RUN_ID]
