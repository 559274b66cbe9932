"""Stays in session with the coordinator: dials, says Hello, beats, and dials again."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration

from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.model import AttemptKey
from runyard.agent.node.capacity import Offer, Offering
from runyard.agent.node.facts import node_facts, node_load
from runyard.agent.node.installation import Installation
from runyard.agent.runtime import Runtime
from runyard.agent.session.channel import Lines
from runyard.agent.session.conversions import facts_of, load_of, offer_of, pressure_of
from runyard.agent.session.delivery import HELLO, SentMessages, SentOffer
from runyard.agent.session.log_uploads import Transfers
from runyard.agent.session.task_group import until_first_ends
from runyard.agent.supervisor.contact import ContactFile
from runyard.common.defaults import PROTOCOL_VERSION
from runyard.common.service.failpoints import failpoint
from runyard.common.transport.handshake_errors import explained
from runyard.v1 import agent_pb2, agent_pb2_grpc

WELCOME_WITHIN = 10.0
"""Seconds for the coordinator to answer Hello."""

GOODBYE_WITHIN = 2.0
"""Seconds for the coordinator to end a session to which the agent said goodbye."""

LONGEST_PAUSE = 32.0
"""Seconds; pauses between tries are drawn from a window that doubles from one second up to this."""

LONGEST_REDIAL = 300.0
"""Seconds for which a coordinator's goodbye keeps the agent away at most, whatever it asks for."""

SHORTEST_BEAT = 0.05
"""Seconds between two heartbeats at least, whatever the coordinator asks for."""

OUTGOING_LIMIT = 1_000
"""Messages that may wait in one session; beyond it the session is given up and everything synced anew."""

REFUSED = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""Answers to Hello that another try will not change."""

log = structlog.get_logger("runyard.agent.session.session")


class Refused(Exception):
    """The coordinator does not want this agent; the message says why and what to do."""


class _SessionOver(Exception):
    """The session ended; the message says how. `pause` is how long to wait before the next, in seconds."""

    def __init__(self, how: str, pause: float | None = None) -> None:
        super().__init__(how)
        self.pause = pause


class _SessionMoves(_SessionOver):
    """The next session can begin on another connection, which is ready."""


@dataclass(frozen=True)
class Identity:
    """Who this agent is, in every session."""

    installation: Installation
    instance_id: str
    boot_id: str


class Session:
    """One period of unbroken contact."""

    def __init__(
        self, settings: AgentSettings, identity: Identity, runtime: Runtime, offering: Offering
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._runtime = runtime
        self._offering = offering
        self._sent_offer = SentOffer(offering.current)
        self._requests: asyncio.Queue[agent_pb2.SessionRequest | None] = asyncio.Queue()
        self._last_ack = time.monotonic()
        self._sent = SentMessages(ContactFile(settings.state_directory))
        self.welcomed = False

    def put(self, message: agent_pb2.SessionRequest) -> None:
        """Queues a message. See `runtime.Outgoing`."""
        if self._requests.qsize() < OUTGOING_LIMIT:
            self._requests.put_nowait(message)
        else:
            self._requests.put_nowait(None)

    async def run(self, lines: Lines, leaving: asyncio.Event) -> None:
        """Keeps the session until it ends.

        Args:
            lines: To the coordinator.
            leaving: Set when the agent shuts down; the session then ends with a Goodbye.

        Raises:
            Refused: The coordinator does not want this agent.
            _SessionOver: The session ended in any other way than by `leaving`.
        """
        line = lines.take()
        stub: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(line.channel)
        transfers = Transfers(self._runtime, stub)
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(line.channel.close)
            closing.push_async_callback(transfers.close)
            try:
                await self._run(stub.Session(self._outgoing()), transfers, lines.replaced(line), leaving)
            except _SessionMoves:
                lines.leave(transfers.finished(), closing.pop_all())
                raise

    async def _run(
        self, call: "_Call", transfers: Transfers, replaced: Coroutine[Any, Any, str], leaving: asyncio.Event
    ) -> None:
        try:
            usages = await self._runtime.usages()
            # Nothing may come between: Hello is the first message, and reports are what changed after it.
            self._sent.note(HELLO)
            offer, attempts = self._offering.current, self._runtime.statuses(usages)
            self._sent_offer = SentOffer(offer)
            self.put(agent_pb2.SessionRequest(hello=self._hello(offer, attempts)))
            with self._runtime.reporting_to(self):
                welcome = await self._welcome(call)
                await until_first_ends(self._stay(call, welcome, transfers, leaving), _move(replaced))
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSED and not self.welcomed:
                raise Refused(error.details() or error.code().name) from error
            raise _SessionOver(f"{error.code().name}: {explained(error.details() or '')}") from error
        finally:
            replaced.close()
            call.cancel()

    async def _outgoing(self) -> AsyncIterator[agent_pb2.SessionRequest]:
        while (message := await self._requests.get()) is not None:
            yield message

    def _hello(self, offer: Offer, attempts: list[agent_pb2.AttemptStatus]) -> agent_pb2.Hello:
        settings = self._settings
        return agent_pb2.Hello(
            node_id=settings.node_id,
            cluster=settings.cluster,
            installation_id=self._identity.installation.id,
            instance_id=self._identity.instance_id,
            boot_id=self._identity.boot_id,
            protocol_min=PROTOCOL_VERSION,
            protocol_max=PROTOCOL_VERSION,
            offer=offer_of(offer),
            facts=facts_of(node_facts()),
            attempts=attempts,
            last_epoch=self._identity.installation.last_epoch,
            warm_servers=self._runtime.warm_servers(),
            pressures=[pressure_of(each) for each in self._runtime.pressures.all()],
        )

    async def _welcome(self, call: "_Call") -> agent_pb2.Welcome:
        try:
            async with asyncio.timeout(WELCOME_WITHIN):
                response = await _read(call)
        except TimeoutError:
            raise _SessionOver(f"no Welcome within {WELCOME_WITHIN:g} s") from None
        if response is None or not response.HasField("welcome"):
            raise _SessionOver(await _why_ended(call))
        self.welcomed = True
        welcome = response.welcome
        failpoint("agent.after_welcome")
        await self._heard(HELLO)
        await self._note_epoch(welcome.node_epoch)
        log.info("ready", node=self._settings.node_id, epoch=welcome.node_epoch)
        return welcome

    async def _heard(self, sequence: int) -> None:
        self._last_ack = time.monotonic()
        await asyncio.to_thread(self._sent.was_heard, sequence)

    async def _note_epoch(self, epoch: int) -> None:
        try:
            await asyncio.to_thread(self._identity.installation.note_epoch, epoch)
        except OSError as error:
            # The next Hello will look like that of a restored disk, which is looked into and harms no run.
            log.error("cannot_note_epoch", epoch=epoch, error=str(error))

    async def _stay(
        self, call: "_Call", welcome: agent_pb2.Welcome, transfers: Transfers, leaving: asyncio.Event
    ) -> None:
        await until_first_ends(
            self._hear(call, transfers, leaving),
            self._beat(max(_seconds(welcome.heartbeat_interval), SHORTEST_BEAT)),
            self._watch(_seconds(welcome.lease)),
            self._leave(leaving),
        )

    async def _hear(self, call: "_Call", transfers: Transfers, leaving: asyncio.Event) -> None:
        while (response := await _read(call)) is not None:
            await self._take(response, transfers)
        if not leaving.is_set():
            # A lost connection looks like a clean end.
            raise _SessionOver(await _why_ended(call))

    async def _leave(self, leaving: asyncio.Event) -> None:
        """Says goodbye when the agent leaves, and lets the coordinator end the stream."""
        await leaving.wait()
        self.put(agent_pb2.SessionRequest(goodbye=self._goodbye()))
        self._requests.put_nowait(None)
        await asyncio.sleep(GOODBYE_WITHIN)

    def _goodbye(self) -> agent_pb2.AgentGoodbye:
        if self._runtime.is_closing:
            return agent_pb2.AgentGoodbye(reason="the machine is shutting down")
        goodbye = agent_pb2.AgentGoodbye(reason="the agent is shutting down; its workers go on")
        goodbye.expect_back_within.FromNanoseconds(round(self._settings.restart_grace * 1e9))
        return goodbye

    async def _take(self, response: agent_pb2.SessionResponse, transfers: Transfers) -> None:
        holdings = self._runtime.holdings
        match response.WhichOneof("message"):
            case "heartbeat_ack":
                self._sent_offer.was_heard(response.heartbeat_ack.sequence)
                await self._heard(response.heartbeat_ack.sequence)
            case "assign":
                assign = response.assign
                await self._heard(assign.after_heartbeat)
                start_by = self._sent.deadline(assign.after_heartbeat, _seconds(assign.start_within))
                await self._runtime.offer(AttemptKey(assign.run_id, assign.attempt), assign.spec, start_by)
            case "stop":
                stop = response.stop
                key = AttemptKey(stop.run_id, stop.attempt)
                await self._runtime.command(lambda: holdings.on_stop(key, _seconds(stop.grace), stop.reason))
            case "report_ack":
                key = AttemptKey(response.report_ack.run_id, response.report_ack.attempt)
                await self._runtime.command(lambda: holdings.on_acknowledged(key))
            case "send_logs":
                transfers.begin(response.send_logs)
            case "refresh_warm_servers":
                self._runtime.refresh_warm_servers(response.refresh_warm_servers.name)
            case "goodbye":
                goodbye = response.goodbye
                pause = random.uniform(0, min(_seconds(goodbye.redial_within), LONGEST_REDIAL))
                raise _SessionOver(f"the coordinator says goodbye: {goodbye.reason}", pause)
            case other:
                # A newer coordinator may say more than this agent understands.
                log.warning("message_not_understood", message=other)

    async def _beat(self, interval: float) -> None:
        sequence = 0
        while True:
            sequence += 1
            load = load_of(await asyncio.to_thread(node_load, self._runtime.directories.state))
            attempts = self._runtime.statuses(await self._runtime.usages())
            self._sent.note(sequence)
            news = self._sent_offer.to_tell(sequence, self._offering.current)
            beat = agent_pb2.Heartbeat(
                sequence=sequence,
                load=load,
                attempts=attempts,
                offer=offer_of(news) if news else None,
                warm_servers=self._runtime.warm_servers(),
                pressures=[pressure_of(each) for each in self._runtime.pressures.all()],
            )
            self.put(agent_pb2.SessionRequest(heartbeat=beat))
            await asyncio.sleep(interval * random.uniform(0.9, 1.1))

    async def _watch(self, lease: float) -> None:
        """Gives a silent coordinator up. A connection that seems alive proves only the kernel behind it."""
        left = lease
        while left > 0:
            await asyncio.sleep(left)
            left = self._last_ack + lease - time.monotonic()
        raise _SessionOver(f"no heartbeat was acknowledged for {lease:g} s")


async def _move(replaced: Coroutine[Any, Any, str]) -> None:
    raise _SessionMoves(await replaced, pause=0.0)


_Call = grpc.aio.StreamStreamCall[agent_pb2.SessionRequest, agent_pb2.SessionResponse]


async def _read(call: _Call) -> agent_pb2.SessionResponse | None:
    """The next message, or None at the end of the stream.

    Raises:
        _SessionOver: What came is no message.
    """
    try:
        response = await call.read()
    except asyncio.CancelledError:
        # grpc.aio raises this also when the call was cancelled, not this task.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None
    if response is None:  # what gRPC gives for bytes that cannot be read, while the call goes on
        raise _SessionOver("the coordinator sent what is no message")
    return response if isinstance(response, agent_pb2.SessionResponse) else None


async def _why_ended(call: _Call) -> str:
    code = await call.code()
    return f"{code.name}: {await call.details() or 'the stream ended'}"


async def stay_in_session(
    settings: AgentSettings, identity: Identity, runtime: Runtime, offering: Offering, leaving: asyncio.Event
) -> None:
    """Holds one session after the other until the agent leaves.

    Raises:
        Refused: The coordinator refused this agent before it ever welcomed it. Later refusals are retried.
        InvalidTlsFiles: The certificates cannot be used.
    """
    ever_welcomed = False
    failures = 0
    lines = Lines(settings)
    try:
        while not leaving.is_set():
            session = Session(settings, identity, runtime, offering)
            pause: float | None = None
            try:
                await session.run(lines, leaving)
            except Refused as refusal:
                if not ever_welcomed:
                    raise
                log.error("refused", reason=str(refusal))
            except _SessionMoves as move:
                pause = move.pause
                log.info("session_moves", reason=str(move))
            except _SessionOver as over:
                pause = over.pause
                log.warning(
                    "session_ended", how=str(over), coordinator=settings.coordinator, pause_asked=pause
                )
            ever_welcomed = ever_welcomed or session.welcomed
            failures = 0 if session.welcomed else failures + 1
            await _pause(leaving, failures, pause)
    finally:
        await lines.close()


async def _pause(leaving: asyncio.Event, failures: int, asked: float | None) -> None:
    """Waits before the next try: as the coordinator asks, or with full jitter in a growing window."""
    window = min(LONGEST_PAUSE, 2.0**failures)
    pause = random.uniform(0, window) if asked is None else asked
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause):
            await leaving.wait()


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
