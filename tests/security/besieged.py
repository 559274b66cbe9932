"""A real coordinator under fire, and an honest node and launcher beside it that must not notice."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import grpc
from coordinator.fleet_building import make_hello
from coordinator.serving import make_spec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness.certificates import files_in, tls_settings
from harness.processes import free_port
from harness.services import Service, open_cluster

from runyard.common.security.identity import DEFAULT_TRUST_DOMAIN, Identity, Role
from runyard.common.transport.channel import open_aio_channel
from runyard.common.transport.tls import TlsMaterial
from runyard.coordinator.ca.authority_directory import AuthorityDirectory
from runyard.v1 import agent_pb2, agent_pb2_grpc, launch_pb2, launch_pb2_grpc, run_pb2

T = TypeVar("T")

SOON: Final = 30.0
"""Seconds within which an honest call is answered, however many dishonest ones came before it."""

PATIENCE: Final = 20.0
"""Seconds within which a dishonest call is answered."""

GLIMPSE: Final = 0.05
"""Seconds for which streams are read that by their nature have no end."""

ANSWERS: Final = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
    }
)
"""What the coordinator may say to nonsense. UNKNOWN and INTERNAL would mean that it did not see it coming."""

BEAT: Final = 1.0
"""Seconds between two heartbeats of the honest node."""

MIB: Final = 1 << 20

ROOM: Final = 128 * MIB
"""What the coordinator's memory may grow by, whatever comes: one snapshot of 20 MB, as bytes and as text,
SQLite's page cache, and what the allocator does not give back."""

ROOM_PER_BYTE: Final = 16
"""What every byte that was sent may occupy besides. Accepted launches and adopted runs are kept, as the
message and as the core's objects with their layers."""

LIFETIME: Final = 86_400.0
"""Of certificates, in seconds."""

QUIET: Final = "quiet-corner"
"""Name of the honest node, its taint, and all that is about it; nothing strange is ever called so."""


class Answer(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str

    @property
    def is_sensible(self) -> bool:
        """Whether the coordinator saw it coming.

        A write that finds the call over is called an internal error by gRPC's client, on this side.
        """
        return self.code in ANSWERS or self.details == "Internal error from Core"


@dataclass(frozen=True)
class Papers:
    """What everybody shows to the coordinator; None: nothing, over plain text.

    Attributes:
        attacked: Another address of the coordinator that is attacked, instead of the one that all use.
    """

    attacker: TlsMaterial | None = None
    launcher: TlsMaterial | None = None
    agent: TlsMaterial | None = None
    attacked: str = ""


class Siege:
    """One coordinator process, and an event loop in a thread from which it is called.

    Attributes:
        service: The process.
        sent: Bytes of all messages so far.
    """

    def __init__(self, service: Service, address: str, papers: "Papers") -> None:
        """Opens the honest session.

        Args:
            service: The process.
            address: Where it listens.
            papers: What everybody shows.
        """
        self.service = service
        self.address = address
        self.sent = 0
        self._papers = papers
        self._read = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="siege")
        self._thread.start()
        self.run(self._open())
        self._memory = self.memory()

    async def _open(self) -> None:
        papers = self._papers
        self._attacker = open_aio_channel(papers.attacked or self.address, papers.attacker)
        self._launcher = open_aio_channel(self.address, papers.launcher)
        self._agent = open_aio_channel(self.address, papers.agent)
        self._health: Any = health_pb2_grpc.HealthStub(self._launcher)
        self._bystander = Bystander(self._agent, self._launcher)
        await self._bystander.join()
        await self._bystander.work()

    async def _close(self) -> None:
        await self._bystander.leave()
        for channel in (self._attacker, self._launcher, self._agent):
            await channel.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for work on the event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Ends all calls."""
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def memory(self) -> int:
        """Resident memory of the coordinator, in bytes."""
        with open(f"/proc/{self.service.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    def unary(self, method: str, data: bytes) -> Answer:
        """The status with which a call is answered."""
        self.sent += len(data)
        call = self._attacker.unary_unary(method, _as_it_is, _as_it_is)
        return self.run(_status_of(lambda: call(data, timeout=PATIENCE)))

    def reading(self, method: str, data: bytes) -> Answer:
        """The status with which a stream of answers ends; OK also if it has no end."""
        self.sent += len(data)
        call = self._attacker.unary_stream(method, _as_it_is, _as_it_is)
        return self.run(_glimpse(lambda: call(data, timeout=PATIENCE)))

    def writing(self, method: str, datas: Sequence[bytes]) -> Answer:
        """The status with which a stream of messages is answered."""
        self.sent += sum(map(len, datas))
        call = self._attacker.stream_unary(method, _as_it_is, _as_it_is)
        return self.run(_status_of(lambda: call(_stream(datas), timeout=PATIENCE)))

    def talking(self, method: str, datas: Sequence[bytes]) -> Answer:
        """The status with which a stream in both directions ends, when this side has said all it has."""
        self.sent += sum(map(len, datas))
        call = self._attacker.stream_stream(method, _as_it_is, _as_it_is)
        return self.run(_status_of(lambda: call(_stream(datas), timeout=PATIENCE)))

    def assert_undisturbed(self) -> None:
        """Raises AssertionError if those who are honest noticed anything."""
        assert self.service.process.poll() is None, f"the coordinator is dead:\n{self._last_words()}"
        try:
            self.run(self._look_around())
        except (AssertionError, grpc.aio.AioRpcError, TimeoutError) as error:
            raise AssertionError(f"{error!r}; the coordinator says:\n{self._last_words()}") from error

    async def _look_around(self) -> None:
        answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=SOON)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await self._bystander.work()

    def assert_memory_bounded(self) -> None:
        """Raises AssertionError if the coordinator holds more than what was sent can account for."""
        grown = self.memory() - self._memory
        allowed = ROOM + ROOM_PER_BYTE * self.sent
        assert grown <= allowed, f"{self.sent / MIB:.1f} MiB were sent, and it grew by {grown / MIB:.0f} MiB"

    def assert_nothing_unforeseen(self) -> None:
        """Raises AssertionError if the coordinator logged an unexpected error since the last look."""
        output = self.service.output()
        news, self._read = output[self._read :], len(output)
        unforeseen = [line for line in news.splitlines() if "Traceback" in line or '"critical"' in line]
        assert not unforeseen, unforeseen[0].encode().decode("unicode_escape")[-2_000:]

    def _last_words(self) -> str:
        return self.service.output()[-3_000:]


class Bystander:
    """An honest node, in one session for the whole siege, and a launcher whose runs go there."""

    def __init__(self, agent: grpc.aio.Channel, launcher: grpc.aio.Channel) -> None:
        self._agents: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(agent)
        self._launches: launch_pb2_grpc.LaunchServiceAsyncStub = launch_pb2_grpc.LaunchServiceStub(launcher)
        self._sequence = 0
        self._heard: list[agent_pb2.SessionResponse] = []
        self._news = asyncio.Condition()
        self._turn = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self) -> None:
        """Opens the session, and beats from now on."""
        self._call = self._agents.Session()
        hello = make_hello(QUIET, cluster=QUIET, slots=1 << 20, taints=[QUIET])
        await self._say(agent_pb2.SessionRequest(hello=hello))
        self._tasks.append(asyncio.create_task(self._hear()))
        await self._until("welcome", lambda _: True)
        self._tasks.append(asyncio.create_task(self._keep_beating()))

    async def work(self) -> None:
        """Beats, and has one run launched, assigned, started and ended.

        Raises:
            AssertionError: The session is over.
            TimeoutError: One of these took too long.
            grpc.aio.AioRpcError: The launch was refused.
        """
        sequence = await self._beat()
        await self._until("heartbeat_ack", lambda ack: ack.sequence >= sequence)
        spec = make_spec(str(uuid.uuid4()), deployment=QUIET)
        spec.requirements.node, spec.requirements.tolerations[:] = QUIET, [QUIET]
        run = (await self._launches.LaunchRun(launch_pb2.LaunchRunRequest(spec=spec), timeout=SOON)).run
        assigned = await self._until("assign", lambda assign: assign.run_id == run.run_id)
        await self._report(assigned, run_pb2.PHASE_RUNNING)
        await self._report(assigned, run_pb2.PHASE_FINISHED)
        await self._until("report_ack", lambda ack: ack.run_id == run.run_id)
        self._heard.clear()

    async def leave(self) -> None:
        """Breaks the session off."""
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            await self._beat()

    async def _beat(self) -> int:
        self._sequence += 1
        beat = agent_pb2.Heartbeat(sequence=self._sequence)
        await self._say(agent_pb2.SessionRequest(heartbeat=beat))
        return self._sequence

    async def _say(self, request: agent_pb2.SessionRequest) -> None:
        await self._require_session()
        async with self._turn:
            await self._call.write(request)

    async def _report(self, assigned: agent_pb2.Assign, phase: run_pb2.Phase.ValueType) -> None:
        status = agent_pb2.AttemptStatus(
            run_id=assigned.run_id, attempt=assigned.attempt, phase=phase, pid=41, deployment=QUIET
        )
        if phase == run_pb2.PHASE_FINISHED:
            status.outcome.kind = run_pb2.OUTCOME_KIND_SUCCEEDED
        report = agent_pb2.AttemptReport(status=status)
        await self._say(agent_pb2.SessionRequest(report=report))

    async def _hear(self) -> None:
        try:
            async for response in self._call:
                await self._take(response)
        finally:
            await self._take()

    async def _take(self, *responses: agent_pb2.SessionResponse) -> None:
        async with self._news:
            self._heard.extend(responses)
            self._news.notify_all()

    async def _until(self, name: str, is_it: Callable[[Any], bool]) -> Any:
        def found() -> Any:
            heard = [getattr(each, name) for each in self._heard if each.WhichOneof("message") == name]
            return next(filter(is_it, heard), None)

        async with asyncio.timeout(SOON), self._news:
            await self._news.wait_for(lambda: found() or self._call.done())
        await self._require_session()
        return found()

    async def _require_session(self) -> None:
        if self._call.done():
            how = f"{await self._call.code()} {await self._call.details()}"
            raise AssertionError(f"the honest session was ended: {how}, after {self._heard[-1:]}")


@contextlib.contextmanager
def besieged() -> Iterator[Siege]:
    """A coordinator that is done with starting, and honest company."""
    with open_cluster() as cluster:
        service = cluster.coordinator()
        service.wait_for_event("ready")
        siege = Siege(service, cluster.address, Papers())
        try:
            yield siege
        finally:
            siege.close()


@contextlib.contextmanager
def besieged_fort() -> Iterator[Siege]:
    """As `besieged`, with certificates; what is attacked is its door for nodes that have none yet."""
    with open_cluster() as cluster:
        authority, tls = AuthorityDirectory(cluster.folder / "ca"), cluster.folder / "ca" / "coordinator"
        authority.init(DEFAULT_TRUST_DOMAIN)

        def issue(identity: Identity, folder: Path, *hosts: str) -> TlsMaterial:
            authority.issue(identity, hosts, LIFETIME, folder)
            files = files_in(folder)
            return files.read()

        issue(Identity(Role.COORDINATOR, "main"), tls, "localhost", "127.0.0.1")
        launcher = issue(Identity(Role.CLIENT, QUIET), cluster.folder / "launcher")
        agent = issue(Identity(Role.AGENT, QUIET, QUIET), cluster.folder / "agent")
        cluster.address, attacked = (f"127.0.0.1:{free_port()}" for _ in range(2))
        often = {"per_second": 1e6, "burst": 1_000_000}
        service = cluster.coordinator(
            settings={
                "tls": tls_settings(files_in(tls)),
                "ca_directory": str(authority.path),
                "join_listen": attacked,
                "rates": {"join": often, "launch": often},
            }
        )
        service.wait_for_event("ready")
        papers = Papers(TlsMaterial(launcher.authority), launcher, agent, attacked)
        siege = Siege(service, cluster.address, papers)
        try:
            yield siege
        finally:
            siege.close()


def _as_it_is(data: bytes) -> bytes:
    return data


async def _stream(datas: Sequence[bytes]) -> AsyncIterator[bytes]:
    for data in datas:
        yield data


async def _status_of(begin: Callable[[], Any]) -> Answer:
    """The status with which a call ends. `begin` makes it, which must happen on the event loop."""
    call = begin()
    with contextlib.suppress(grpc.aio.AioRpcError):
        if isinstance(call, grpc.aio.UnaryUnaryCall | grpc.aio.StreamUnaryCall):
            await call
        else:
            async for _ in call:
                pass
    return Answer(await call.code(), await call.details() or "")


async def _glimpse(begin: Callable[[], Any]) -> Answer:
    reading = asyncio.create_task(_status_of(begin))
    done, _ = await asyncio.wait({reading}, timeout=GLIMPSE)
    if done:
        return await reading
    reading.cancel()
    await asyncio.wait({reading})
    return Answer(grpc.StatusCode.OK, "and has no end")
