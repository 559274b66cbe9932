"""FollowReports: one reporter at a time, and every outcome until it is settled."""

import asyncio
from pathlib import Path

import grpc
import pytest
from coordinator.fleet_building import finished, make_hello, running, starting
from coordinator.serving import SOON, Serving, StubAgent, make_spec, run_id, serving
from harness.waiting import await_until

from runyard.coordinator.grpc import reporter_queue
from runyard.v1 import launch_pb2, run_pb2


class Reporter:
    """A reporter that acknowledges outcomes as the test demands."""

    def __init__(self, coordinator: Serving, name: str = "first", deployment: str = "shop") -> None:
        self._first = launch_pb2.FollowReportsRequest(deployment=deployment, reporter=name)
        self.call = coordinator.launch.FollowReports()

    async def open(self) -> "Reporter":
        """Asks for the turn."""
        await self.call.write(self._first)
        return self

    async def next(self, within: float = SOON) -> tuple[int, str]:
        """Number and phase of the next reported run."""
        run = await self.next_run(within)
        phase = run_pb2.Phase.Name(run.phase).removeprefix("PHASE_").lower()
        return int(run.run_id[-12:]), phase

    async def next_run(self, within: float = SOON) -> run_pb2.Run:
        """The next reported run."""
        response = await asyncio.wait_for(self.call.read(), within)
        assert isinstance(response, launch_pb2.FollowReportsResponse)
        return response.run

    async def settle(self, *numbers: int, attempt: int = 0) -> None:
        """Acknowledges outcomes."""
        keys = [launch_pb2.AttemptKey(run_id=run_id(number), attempt=attempt) for number in numbers]
        await self.call.write(launch_pb2.FollowReportsRequest(acknowledged=keys))

    async def live(self) -> None:
        """Shows that it lives."""
        await self.call.write(launch_pb2.FollowReportsRequest())

    async def refused(self) -> grpc.StatusCode:
        """The status with which the stream ends."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.next()
        return caught.value.code()


async def end_run(coordinator: Serving, agent: StubAgent, number: int, deployment: str = "shop") -> None:
    spec = make_spec(run_id(number))
    spec.deployment = deployment
    await coordinator.launched(spec)
    await agent.report(finished(run_id(number), kind=run_pb2.OUTCOME_KIND_FAILED))
    await coordinator.until_phase(run_pb2.PHASE_FINISHED, run_id(number))


async def until_settled(coordinator: Serving, number: int) -> None:
    runs = coordinator.runtime.fleet.runs
    await await_until(lambda: runs[run_id(number)].reported, f"run {number} settled", SOON)


async def test_outcomes_of_before_come_first_then_each_as_it_happens(
    coordinator: Serving, agent: StubAgent
) -> None:
    await end_run(coordinator, agent, 1)
    await end_run(coordinator, agent, 2)
    reporter = await Reporter(coordinator).open()
    assert [await reporter.next() for _ in range(2)] == [(1, "finished"), (2, "finished")]
    await end_run(coordinator, agent, 3)
    assert await reporter.next() == (3, "finished")


async def test_slow_start_is_reported_with_its_progress(coordinator: Serving, agent: StubAgent) -> None:
    reporter = await Reporter(coordinator).open()
    await coordinator.launched(make_spec(run_id(1)))
    await agent.report(starting(run_id(1)))  # is not reported
    await agent.report(starting(run_id(1), progress="1 of 4 MiB"))
    assert (await reporter.next_run()).message == "1 of 4 MiB"
    await agent.report(running(run_id(1)))
    assert await reporter.next() == (1, "running")


async def test_start_of_the_worker_is_reported_too(coordinator: Serving, agent: StubAgent) -> None:
    reporter = await Reporter(coordinator).open()
    await coordinator.launched(make_spec(run_id(1)))
    await agent.report(running(run_id(1)))
    assert await reporter.next() == (1, "running")


async def test_reporter_hears_of_its_own_deployment_only(coordinator: Serving, agent: StubAgent) -> None:
    shop = await Reporter(coordinator, deployment="shop").open()
    factory = await Reporter(coordinator, deployment="factory").open()
    await end_run(coordinator, agent, 1, deployment="factory")
    await end_run(coordinator, agent, 2, deployment="shop")
    assert (await shop.next(), await factory.next()) == ((2, "finished"), (1, "finished"))


async def test_outcome_that_was_not_settled_comes_again_to_the_next_reporter(
    coordinator: Serving, agent: StubAgent
) -> None:
    await end_run(coordinator, agent, 1)
    await end_run(coordinator, agent, 2)
    first = await Reporter(coordinator).open()
    await first.next()
    await first.settle(1)
    await until_settled(coordinator, 1)
    first.call.cancel()
    second = await Reporter(coordinator).open()
    assert await second.next() == (2, "finished")


async def test_outcomes_come_again_after_a_restart_until_they_are_settled(tmp_path: Path) -> None:
    async with serving(tmp_path / "state") as coordinator:
        agent = await coordinator.join()
        await end_run(coordinator, agent, 1)
        await end_run(coordinator, agent, 2)
        reporter = await Reporter(coordinator).open()
        await reporter.next()
        await reporter.settle(1)
        await until_settled(coordinator, 1)
    async with serving(tmp_path / "state") as coordinator:
        agent = await coordinator.join(make_hello(slots=8))
        reporter = await Reporter(coordinator).open()
        assert await reporter.next() == (2, "finished")
        await end_run(coordinator, agent, 3)
        assert await reporter.next() == (3, "finished")


async def test_settling_an_earlier_attempt_settles_nothing(coordinator: Serving, agent: StubAgent) -> None:
    await end_run(coordinator, agent, 1)
    reporter = await Reporter(coordinator).open()
    await reporter.next()
    await reporter.settle(1, attempt=7)
    await reporter.settle(99)
    await end_run(coordinator, agent, 2)
    await reporter.next()
    reporter.call.cancel()
    again = await Reporter(coordinator).open()
    assert [await again.next() for _ in range(2)] == [(1, "finished"), (2, "finished")]


async def test_second_reporter_waits_until_the_first_has_left(coordinator: Serving, agent: StubAgent) -> None:
    first = await Reporter(coordinator, "first").open()
    await end_run(coordinator, agent, 1)
    assert await first.next() == (1, "finished")
    second = await Reporter(coordinator, "second").open()
    await end_run(coordinator, agent, 2)
    assert await first.next() == (2, "finished")
    told_second = asyncio.create_task(second.next())
    await end_run(coordinator, agent, 3)
    assert await first.next() == (3, "finished")
    assert not told_second.done()
    first.call.cancel()
    assert await told_second == (1, "finished")


async def test_reporter_that_leaves_in_line_does_not_hold_up_the_others(
    coordinator: Serving, agent: StubAgent
) -> None:
    await end_run(coordinator, agent, 1)
    first = await Reporter(coordinator, "first").open()
    await first.next()
    impatient = await Reporter(coordinator, "impatient").open()
    third = await Reporter(coordinator, "third").open()
    impatient.call.cancel()
    first.call.cancel()
    assert await third.next() == (1, "finished")


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reporters lose their turn after a fraction of a second."""
    monkeypatch.setattr(reporter_queue, "SILENCE", 0.4)


@pytest.mark.usefixtures("impatience")
async def test_silent_reporter_loses_its_turn(coordinator: Serving, agent: StubAgent) -> None:
    await end_run(coordinator, agent, 1)
    silent = await Reporter(coordinator, "silent").open()
    await silent.next()
    patient = await Reporter(coordinator, "patient").open()
    told = asyncio.create_task(patient.next())
    while not told.done():
        await patient.live()
        await asyncio.wait({told}, timeout=0.1)
    assert told.result() == (1, "finished")
    assert await silent.refused() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.usefixtures("impatience")
async def test_reporter_that_shows_that_it_lives_keeps_its_turn(
    coordinator: Serving, agent: StubAgent
) -> None:
    reporter = await Reporter(coordinator).open()
    started = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < started + 1.0:
        await reporter.live()
        await asyncio.sleep(0.1)
    await end_run(coordinator, agent, 1)
    assert await reporter.next() == (1, "finished")


async def test_reporter_that_ends_its_side_gives_its_turn_back(
    coordinator: Serving, agent: StubAgent
) -> None:
    first = await Reporter(coordinator, "first").open()
    await end_run(coordinator, agent, 1)
    await first.next()
    await first.call.done_writing()
    second = await Reporter(coordinator, "second").open()
    assert await second.next() == (1, "finished")
