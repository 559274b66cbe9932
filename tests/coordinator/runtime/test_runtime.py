"""The coordinator's runtime: persist, send, answer, in this order, and many decisions in one write."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from coordinator.fleet_building import finished, running
from coordinator.serving import RUN_ID, SOON, Serving, make_spec, run_id, serving
from harness.waiting import await_until

from runyard.coordinator.core.effects import Effect
from runyard.coordinator.store.store import Store
from runyard.v1 import agent_pb2, launch_pb2, run_pb2


class HeldStore(Store):
    """A store whose writes wait while the test holds them."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.groups: list[int] = []
        self.begun = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def write(self, effects: Iterable[Effect]) -> None:
        self.begun.set()
        assert self.free.wait(SOON)
        batch = list(effects)
        super().write(batch)
        self.groups.append(len(batch))

    def hold(self) -> None:
        """From now on writes wait."""
        self.begun.clear()
        self.free.clear()

    async def until_begun(self) -> None:
        """Returns as soon as a write waits."""
        await await_until(self.begun.is_set, "no write began", SOON)


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[tuple[Serving, HeldStore]]:
    """A coordinator and its store."""
    stores: list[HeldStore] = []

    def open_store(directory: Path) -> Store:
        stores.append(HeldStore(directory))
        return stores[0]

    async with serving(tmp_path / "state", open_store=open_store) as coordinator:
        yield coordinator, stores[0]
        stores[0].free.set()


async def stays_pending(*tasks: asyncio.Task[object]) -> bool:
    """True if none of the tasks ends within a moment."""
    done, _ = await asyncio.wait(tasks, timeout=0.1)
    return not done


async def test_launch_is_neither_answered_nor_sent_nor_shown_before_it_is_on_disk(
    held: tuple[Serving, HeldStore],
) -> None:
    coordinator, store = held
    agent = await coordinator.join()
    await coordinator.launched(make_spec(run_id(2)))
    await agent.expect("assign")
    watch = coordinator.launch.WatchRuns(launch_pb2.WatchRunsRequest())
    await watch.read()
    store.hold()
    answer = asyncio.create_task(coordinator.launched())
    await store.until_begun()
    told = asyncio.create_task(agent.read())
    seen = asyncio.create_task(watch.read())
    looked = asyncio.create_task(coordinator.get())
    assert await stays_pending(answer, told, seen, looked)
    store.free.set()
    assert (await answer).phase == run_pb2.PHASE_ASSIGNED
    assert (await looked).run.run_id == RUN_ID
    assert isinstance(await seen, launch_pb2.WatchRunsResponse)
    message = await told
    assert message is not None
    assert message.assign.run_id == RUN_ID


async def test_end_is_not_acknowledged_before_it_is_on_disk(held: tuple[Serving, HeldStore]) -> None:
    coordinator, store = held
    agent = await coordinator.join()
    await coordinator.launched()
    await agent.expect("assign")
    store.hold()
    await agent.report(finished(RUN_ID))
    await store.until_begun()
    ack = asyncio.create_task(agent.read())
    assert await stays_pending(ack)
    store.free.set()
    message = await ack
    assert message is not None
    assert message.report_ack.run_id == RUN_ID


async def test_repeat_of_a_launch_that_is_not_on_disk_yet_waits_for_it_too(
    held: tuple[Serving, HeldStore],
) -> None:
    coordinator, store = held
    await coordinator.join()
    store.hold()
    first = asyncio.create_task(coordinator.launched())
    await store.until_begun()
    second = asyncio.create_task(coordinator.launched())
    assert await stays_pending(first, second)
    store.free.set()
    assert await first == await second


async def test_launches_that_come_while_the_disk_is_busy_are_written_together(
    held: tuple[Serving, HeldStore],
) -> None:
    coordinator, store = held
    await coordinator.join()
    store.hold()
    store.groups.clear()
    first = asyncio.create_task(coordinator.launched())
    await store.until_begun()
    rest = [asyncio.create_task(coordinator.launched(make_spec(run_id(n)))) for n in range(2, 62)]
    await await_until(lambda: len(coordinator.runtime.fleet.runs) == 61, "not all launches arrived", SOON)
    store.free.set()
    await asyncio.gather(first, *rest)
    assert len(store.groups) <= 3, f"groups of {store.groups} effects"


async def test_heartbeats_write_nothing(held: tuple[Serving, HeldStore]) -> None:
    coordinator, store = held
    agent = await coordinator.join()
    await coordinator.launched()
    await agent.expect("assign")
    await agent.report(running(RUN_ID))
    await coordinator.until_phase(run_pb2.PHASE_RUNNING)
    store.groups.clear()
    for number in range(1, 20):
        await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=number, attempts=[running(RUN_ID)]))
        assert (await agent.expect("heartbeat_ack")).sequence == number
    assert store.groups == []


async def test_caller_that_leaves_does_not_take_its_launch_along(held: tuple[Serving, HeldStore]) -> None:
    coordinator, store = held
    await coordinator.join()
    store.hold()
    call = coordinator.launch.LaunchRun(launch_pb2.LaunchRunRequest(spec=make_spec()), timeout=SOON)
    waiting = asyncio.ensure_future(call)
    await store.until_begun()
    call.cancel()
    await asyncio.wait({waiting})
    store.free.set()
    assert (await coordinator.get()).run.phase == run_pb2.PHASE_ASSIGNED
    assert (await coordinator.launched()).attempt == 0


async def test_late_run_is_ended_without_anybody_asking(held: tuple[Serving, HeldStore]) -> None:
    coordinator, _ = held
    agent = await coordinator.join()
    policies = run_pb2.Policies()
    policies.start_timeout.FromMilliseconds(1)
    await coordinator.launched(make_spec(policies=policies))
    await agent.expect("assign")
    assert "did not start within" in (await agent.expect("stop")).reason
