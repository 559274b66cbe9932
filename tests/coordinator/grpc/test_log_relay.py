"""ReadLogs and PushLogs: the coordinator between a reader and the agent that holds the file."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from coordinator.fleet_building import finished, make_hello, running
from coordinator.serving import RUN_ID, SOON, Serving, StubAgent, make_spec, refusal
from harness.waiting import await_until

from runyard.coordinator.grpc import log_relay
from runyard.v1 import agent_pb2, agent_pb2_grpc, fleet_pb2, launch_pb2, placement_pb2, run_pb2

Status = grpc.StatusCode
STDOUT = launch_pb2.LOG_STREAM_STDOUT


class Reader:
    """An open ReadLogs."""

    def __init__(self, coordinator: Serving, **fields: object) -> None:
        request = launch_pb2.ReadLogsRequest(run_id=RUN_ID, stream=STDOUT)
        request.MergeFrom(launch_pb2.ReadLogsRequest(**fields))  # type: ignore[arg-type]
        self.call = coordinator.launch.ReadLogs(request, timeout=SOON)

    async def next(self) -> tuple[int, bytes] | None:
        """The next piece: its offset and its bytes; None at the end."""
        piece = await self.call.read()
        return (piece.offset, piece.data) if isinstance(piece, launch_pb2.ReadLogsResponse) else None

    async def rest(self) -> bytes:
        """Everything until the end."""
        pieces = []
        while piece := await self.next():
            pieces.append(piece[1])
        return b"".join(pieces)


class Push:
    """A PushLogs in which the test decides when what is sent."""

    def __init__(self, coordinator: Serving, transfer_id: str) -> None:
        stub: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(coordinator.channel)
        self._transfer = transfer_id
        self._pieces: asyncio.Queue[agent_pb2.PushLogsRequest | None] = asyncio.Queue()
        self.call = stub.PushLogs(self._stream())

    def send(self, offset: int = 0, data: bytes = b"", error: str = "") -> None:
        """Sends a piece."""
        self._pieces.put_nowait(
            agent_pb2.PushLogsRequest(transfer_id=self._transfer, offset=offset, data=data, error=error)
        )

    @property
    def waiting(self) -> int:
        """Number of pieces that gRPC has not accepted yet."""
        return self._pieces.qsize()

    async def end(self) -> None:
        """Ends the log, and waits until the coordinator has taken all of it."""
        self._pieces.put_nowait(None)
        await asyncio.wait_for(self.call, SOON)

    async def _stream(self) -> AsyncIterator[agent_pb2.PushLogsRequest]:
        while piece := await self._pieces.get():
            yield piece


@pytest.fixture
async def placed(coordinator: Serving, agent: StubAgent) -> StubAgent:
    """An agent that runs the worker of `RUN_ID`."""
    await coordinator.launched()
    await agent.expect("assign")
    await agent.report(running(RUN_ID))
    await coordinator.until_phase(run_pb2.PHASE_RUNNING)
    return agent


async def test_log_comes_from_the_agent_piece_by_piece(coordinator: Serving, placed: StubAgent) -> None:
    reader = Reader(coordinator)
    wanted = await placed.expect("send_logs")
    push = Push(coordinator, wanted.transfer_id)
    push.send(0, b"one ")
    assert await reader.next() == (0, b"one ")
    push.send(4, b"two")
    assert await reader.next() == (4, b"two")
    await push.end()
    assert await reader.next() is None


async def test_what_the_reader_asks_for_reaches_the_agent(coordinator: Serving, placed: StubAgent) -> None:
    Reader(coordinator, stream=launch_pb2.LOG_STREAM_STDERR, offset=-100, limit=50, follow=True, attempt=0)
    wanted = await placed.expect("send_logs")
    assert (wanted.run_id, wanted.attempt, wanted.stream) == (RUN_ID, 0, launch_pb2.LOG_STREAM_STDERR)
    assert (wanted.offset, wanted.limit, wanted.follow) == (-100, 50, True)


async def test_two_readers_of_one_log_each_get_all_of_it(coordinator: Serving, placed: StubAgent) -> None:
    readers = [Reader(coordinator) for _ in range(2)]
    for _ in readers:
        push = Push(coordinator, (await placed.expect("send_logs")).transfer_id)
        push.send(0, b"all of it")
        await push.end()
    assert [await reader.rest() for reader in readers] == [b"all of it"] * 2


async def test_log_that_the_agent_cannot_read_is_NOT_FOUND_with_its_words(
    coordinator: Serving, placed: StubAgent
) -> None:
    reader = Reader(coordinator)
    push = Push(coordinator, (await placed.expect("send_logs")).transfer_id)
    push.send(error="the log was cleaned up")
    assert await refusal(reader.next()) == (Status.NOT_FOUND, "node node-a: the log was cleaned up")


async def test_logs_of_a_silent_node_are_UNAVAILABLE(coordinator: Serving, placed: StubAgent) -> None:
    placed.vanish()
    await coordinator.until_node(fleet_pb2.NODE_STATE_SUSPECT)
    code, text = await refusal(Reader(coordinator).next())
    assert code == Status.UNAVAILABLE
    assert text == "node node-a is not connected; its logs can be read when it is back"


async def test_node_that_does_not_send_is_UNAVAILABLE(
    coordinator: Serving, placed: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_relay, "FIRST_PIECE", 0.1)
    code, text = await refusal(Reader(coordinator).next())
    assert code == Status.UNAVAILABLE
    assert "did not send the log within 0.1 s" in text


async def test_followed_log_that_breaks_off_while_the_worker_lives_is_UNAVAILABLE_not_over(
    coordinator: Serving, placed: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_relay, "STATUS_WITHIN", 0.1)
    reader = Reader(coordinator, follow=True)
    push = Push(coordinator, (await placed.expect("send_logs")).transfer_id)
    push.send(0, b"half")
    assert await reader.next() == (0, b"half")
    push.call.cancel()
    placed.vanish()
    code, text = await refusal(reader.next())
    assert code == Status.UNAVAILABLE
    assert text == "the log from node node-a broke off; read on from the last offset"


async def test_followed_log_ends_with_its_attempt(coordinator: Serving, placed: StubAgent) -> None:
    reader = Reader(coordinator, follow=True)
    push = Push(coordinator, (await placed.expect("send_logs")).transfer_id)
    push.send(0, b"all")
    await placed.report(finished(RUN_ID))
    await push.end()
    assert await reader.rest() == b"all"


async def test_followed_log_may_end_a_moment_before_the_news_of_its_attempt(
    coordinator: Serving, placed: StubAgent
) -> None:
    reader = Reader(coordinator, follow=True)
    push = Push(coordinator, (await placed.expect("send_logs")).transfer_id)
    push.send(0, b"all")
    await push.end()
    assert await reader.next() == (0, b"all")
    await placed.report(finished(RUN_ID))
    assert await reader.next() is None


async def test_followed_log_ends_at_its_limit_while_the_worker_lives(
    coordinator: Serving, placed: StubAgent
) -> None:
    reader = Reader(coordinator, follow=True, limit=3)
    push = Push(coordinator, (await placed.expect("send_logs")).transfer_id)
    push.send(0, b"abc")
    await push.end()
    assert await reader.rest() == b"abc"


async def test_push_ends_when_the_reader_has_left(coordinator: Serving, placed: StubAgent) -> None:
    reader = Reader(coordinator, follow=True)
    push = Push(coordinator, (await placed.expect("send_logs")).transfer_id)
    push.send(0, b"one")
    await reader.next()
    reader.call.cancel()

    async def refused() -> grpc.StatusCode | None:
        push.send(3, b"more")
        return (await push.call.code()) if push.call.done() else None

    code: grpc.StatusCode = await await_until(refused, "the push goes on", SOON)
    # grpc itself calls it an internal error if the refusal comes while a piece is being written.
    assert code in (Status.NOT_FOUND, Status.INTERNAL)
    assert "the coordinator failed" not in await push.call.details()


async def test_slow_reader_holds_the_agent_back(coordinator: Serving, placed: StubAgent) -> None:
    reader = Reader(coordinator)
    push = Push(coordinator, (await placed.expect("send_logs")).transfer_id)
    size, count = 64 * 1024, 400
    for number in range(count):
        push.send(number * size, bytes(size))
    ending = asyncio.create_task(push.end())
    await reader.next()
    await coordinator.get()
    assert push.waiting > count / 2
    assert len(await reader.rest()) == size * (count - 1)
    await ending


async def test_push_of_an_unknown_transfer_is_NOT_FOUND(coordinator: Serving, agent: StubAgent) -> None:
    piece = agent_pb2.PushLogsRequest(transfer_id="nobody's", data=b"x")
    assert (await refusal(agent.push_logs(piece)))[0] == Status.NOT_FOUND


async def test_run_that_never_reached_a_node_has_no_log(coordinator: Serving) -> None:
    await coordinator.join(make_hello(slots=1))
    await coordinator.launched(make_spec("00000000-0000-4000-8000-000000000002"))
    await coordinator.launched()
    code, text = await refusal(Reader(coordinator).next())
    assert code == Status.NOT_FOUND
    assert text == f"attempt 0 of run {RUN_ID} never reached a node, so it has no log"


async def test_log_of_an_earlier_attempt_is_asked_of_the_node_that_had_it(coordinator: Serving) -> None:
    first = await coordinator.join(make_hello("node-a"))
    await coordinator.launched()
    await first.expect("assign")
    await first.report(finished(RUN_ID, kind=run_pb2.OUTCOME_KIND_FAILED))
    await coordinator.until_phase(run_pb2.PHASE_FINISHED)
    second = await coordinator.join(make_hello("node-b"))
    elsewhere = placement_pb2.Requirements(node="node-b")
    await coordinator.launched(
        make_spec(kind=run_pb2.LAUNCH_KIND_RESUME, resume_number=1, requirements=elsewhere)
    )
    await second.expect("assign")
    await first.expect("report_ack")
    Reader(coordinator, attempt=0)
    assert (await first.expect("send_logs")).attempt == 0
    Reader(coordinator)
    assert (await second.expect("send_logs")).attempt == 1


async def test_log_of_an_attempt_that_never_was_is_NOT_FOUND(coordinator: Serving, placed: StubAgent) -> None:
    assert (await refusal(Reader(coordinator, attempt=5).next()))[0] == Status.NOT_FOUND
