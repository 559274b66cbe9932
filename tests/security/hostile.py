"""A coordinator that means harm, and a real agent that has to live with it."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
from agent.stub_coordinator import Agent, seconds
from harness.waiting import await_until, wait_until

from runyard.coordinator.grpc.listening import SERVER_OPTIONS
from runyard.v1 import agent_pb2, run_pb2

T = TypeVar("T")

MIB: Final = 1 << 20

ROOM: Final = 96 * MIB
"""What the agent's memory may grow by, whatever comes."""

ROOM_PER_BYTE: Final = 16
"""What every byte that was sent may occupy besides: attempts are held until they are acknowledged."""

HONEST: Final = "honest-run"
"""Beginning of the IDs of runs that are to be started; nothing strange is ever called so."""


class HostileCoordinator(grpc.GenericRpcHandler):
    """Welcomes every agent, then says in its session whatever bytes it is told to.

    Attributes:
        heard: What agents said, in order.
        sessions: How many there were.
        beat: Seconds that it tells agents to wait between two heartbeats.
    """

    def __init__(self, socket: Path) -> None:
        self.address = f"unix:{socket}"
        self.heard: list[agent_pb2.SessionRequest] = []
        self.sessions = 0
        self.beat = 0.0
        self._to_agent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers([self])
        self._server.add_insecure_port(self.address)

    async def start(self) -> None:
        """Begins to serve."""
        await self._server.start()

    async def stop(self) -> None:
        """Ends all calls."""
        await self._server.stop(0)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """See `grpc.GenericRpcHandler`."""
        if details.method == "/runyard.v1.AgentService/Session":
            read = agent_pb2.SessionRequest.FromString
            return grpc.stream_stream_rpc_method_handler(self._session, read, bytes)
        return grpc.stream_unary_rpc_method_handler(self._take_all, bytes, bytes)

    def say(self, data: bytes) -> None:
        """Has these bytes sent in the session."""
        self._to_agent.put_nowait(data)

    async def _session(self, requests: AsyncIterator[Any], _: Any) -> AsyncIterator[bytes]:
        mine: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._to_agent = mine
        self.heard.append(await anext(requests))
        welcome = agent_pb2.Welcome(
            node_epoch=1, protocol=1, heartbeat_interval=seconds(self.beat), lease=seconds(600)
        )
        yield agent_pb2.SessionResponse(welcome=welcome).SerializeToString()
        self.sessions += 1
        hearing = asyncio.create_task(self._hear(requests, mine))
        try:
            while (data := await mine.get()) is not None:
                yield data
        finally:
            hearing.cancel()

    async def _hear(
        self, requests: AsyncIterator[agent_pb2.SessionRequest], to_agent: asyncio.Queue[bytes | None]
    ) -> None:
        try:
            async for request in requests:
                self.heard.append(request)
        finally:
            to_agent.put_nowait(None)

    async def _take_all(self, requests: AsyncIterator[bytes], _: Any) -> bytes:
        async for _piece in requests:
            pass
        return b""


class Captive:
    """An agent in the hands of a hostile coordinator.

    Attributes:
        folder: All that is of this test; the agent's state is in `node`.
        sent: Bytes of all messages so far.
    """

    def __init__(self, folder: Path, *, beat: float = 0.1, **settings: Any) -> None:
        self.folder = folder
        self.sent = 0
        self._runs = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile")
        self._thread.start()
        self.coordinator = self._run(self._open())
        self.coordinator.beat = beat
        self.agent = Agent(folder / "node", self.coordinator.address, **settings)
        self.agent.start()
        wait_until(lambda: self.coordinator.sessions, self.agent.log)
        self._memory = self.memory()

    async def _open(self) -> HostileCoordinator:
        coordinator = HostileCoordinator(self.folder / "socket")
        await coordinator.start()
        return coordinator

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Ends both."""
        self.agent.close()
        self._run(self.coordinator.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def pid(self) -> int:
        """Of the agent."""
        assert self.agent.process is not None
        return self.agent.process.pid

    def memory(self) -> int:
        """Resident memory of the agent, in bytes."""
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    def beats(self) -> int:
        """How many heartbeats were heard."""
        return sum(request.HasField("heartbeat") for request in list(self.coordinator.heard))

    def told(self, messages: Sequence[bytes]) -> None:
        """Has the agent take these messages, and waits until it has, or has dialled anew."""
        self.sent += sum(map(len, messages))
        self._run(self._tell(messages))

    async def _tell(self, messages: Sequence[bytes]) -> None:
        coordinator, sessions = self.coordinator, self.coordinator.sessions
        for message in messages:
            coordinator.say(message)
        # A stop is answered after everything that came before it: the session is read in order.
        self._runs += 1
        last = agent_pb2.Stop(run_id=f"last-{self._runs}", attempt=1)
        coordinator.say(agent_pb2.SessionResponse(stop=last).SerializeToString())

        def is_through() -> bool:
            if coordinator.sessions > sessions:
                return True
            news = (request.report.status.run_id for request in coordinator.heard)
            return last.run_id in news

        await await_until(is_through, lambda: f"no answer; the agent says\n{self.agent.log()[-2_000:]}")
        acknowledged = agent_pb2.ReportAck(run_id=last.run_id, attempt=1)
        coordinator.say(agent_pb2.SessionResponse(report_ack=acknowledged).SerializeToString())
        coordinator.heard.clear()

    def honest_run(self, program: Path) -> agent_pb2.AttemptStatus:
        """Has a run started, and gives its end."""
        self._runs += 1
        run_id = f"{HONEST}-{self._runs}"
        return self._run(self._play(run_id, program))

    async def _play(self, run_id: str, program: Path) -> agent_pb2.AttemptStatus:
        def assign() -> None:
            spec = run_pb2.LaunchSpec(
                run_id=run_id,
                kind=run_pb2.LAUNCH_KIND_EXECUTE,
                code_origin=run_pb2.CodeOrigin(executable=str(program)),
            )
            offer = agent_pb2.Assign(run_id=run_id, attempt=1, spec=spec, start_within=seconds(600))
            self.coordinator.say(agent_pb2.SessionResponse(assign=offer).SerializeToString())

        asked = 0

        def ended() -> list[agent_pb2.AttemptStatus]:
            nonlocal asked
            if asked < self.coordinator.sessions:  # what is said to a session that ends may be lost
                asked = self.coordinator.sessions
                assign()
            told = [status for request in self.coordinator.heard for status in _statuses(request)]
            return [each for each in told if each.run_id == run_id and each.phase == run_pb2.PHASE_FINISHED]

        found = await await_until(ended, lambda: f"no end; the agent says\n{self.agent.log()[-2_000:]}")
        acknowledged = agent_pb2.ReportAck(run_id=run_id, attempt=1)
        self.coordinator.say(agent_pb2.SessionResponse(report_ack=acknowledged).SerializeToString())
        return found[0]

    def assert_unharmed(self) -> None:
        """Raises AssertionError if the agent died, logged an unexpected error, or grew."""
        process = self.agent.process
        assert process is not None
        assert process.poll() is None, f"the agent is dead:\n{self.agent.log()[-3_000:]}"
        unforeseen = [line for line in self.agent.log().splitlines() if "Traceback" in line]
        assert not unforeseen, self.agent.log()[-4_000:]
        grown, allowed = self.memory() - self._memory, ROOM + ROOM_PER_BYTE * self.sent
        assert grown <= allowed, f"{self.sent / MIB:.1f} MiB were sent, and it grew by {grown / MIB:.0f} MiB"

    def files_outside(self) -> set[str]:
        """What lies in the folder beside what belongs there."""
        return set(os.listdir(self.folder)) - {"node", "node.log", "socket"}


def _statuses(request: agent_pb2.SessionRequest) -> list[agent_pb2.AttemptStatus]:
    match request.WhichOneof("message"):
        case "hello":
            return list(request.hello.attempts)
        case "heartbeat":
            return list(request.heartbeat.attempts)
        case "report":
            return [request.report.status]
        case _:
            return []


@contextlib.contextmanager
def captured(folder: Path, **settings: Any) -> Iterator[Captive]:
    """An agent in session with a hostile coordinator."""
    captive = Captive(folder, **settings)
    try:
        yield captive
    finally:
        captive.close()
