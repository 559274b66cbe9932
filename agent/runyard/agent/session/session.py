"""The session with the coordinator: connect, send Hello and heartbeats, process commands, reconnect."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
import grpc.aio
import structlog

from runyard.agent.core.model import Assignment, AttemptKey
from runyard.agent.node.facts import node_facts, node_load
from runyard.agent.runtime.agent import Agent
from runyard.agent.runtime.events import Acknowledged, Assigned, StopRequested
from runyard.agent.session.channel import Channels
from runyard.agent.session.delivery import HELLO, DeliveryTimes, ResourcesDelivery
from runyard.agent.session.identity import SessionIdentity
from runyard.agent.session.log_uploads import LogUploads
from runyard.agent.session.messages import goodbye, heartbeat, hello, report
from runyard.agent.session.task_group import until_first_ends
from runyard.agent.spec_record.identities import identity_of
from runyard.agent.supervisor.contact import ContactFile
from runyard.common.backoff import Backoff, jittered
from runyard.common.protobuf_time import to_seconds
from runyard.common.service.failpoints import failpoint
from runyard.common.transport.handshake_errors import explained
from runyard.v1 import agent_pb2, agent_pb2_grpc

WELCOME_WITHIN = 10.0
"""Seconds for the coordinator to answer Hello."""

GOODBYE_WITHIN = 2.0
"""Seconds for the coordinator to end a session after the agent's Goodbye."""

RECONNECT = Backoff(first=1.0, longest=32.0)
"""Pauses before the next session; the first one follows a session that worked."""

LONGEST_REDIAL = 300.0
"""Longest pause that a coordinator's Goodbye can request, in seconds."""

SHORTEST_BEAT = 0.05
"""Shortest interval between heartbeats that the coordinator can request, in seconds."""

OUTGOING_LIMIT = 1_000
"""Number of messages that can wait in a session. Above it the session ends, and the next one syncs again."""

REFUSED = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""Answers to Hello that a retry will not change."""

log = structlog.get_logger("runyard.agent.session.session")


class Refused(Exception):
    """The coordinator refuses this agent; the message names the reason and the remedy."""


class _SessionOver(Exception):
    """The session ended; the message names the reason. `pause`: seconds to wait before the next one."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class _SessionMoves(_SessionOver):
    """The next session can begin on another connection, which is ready."""


class Session:
    """One period of unbroken contact with the coordinator."""

    def __init__(self, agent: Agent, identity: SessionIdentity) -> None:
        self._agent = agent
        self._identity = identity
        self._resources = ResourcesDelivery(agent.resources.current)
        self._requests: asyncio.Queue[agent_pb2.SessionRequest | None] = asyncio.Queue()
        self._last_ack = time.monotonic()
        self._times = DeliveryTimes(ContactFile(agent.settings.state_directory))
        self.welcomed = False

    async def run(self, channels: Channels, leaving: asyncio.Event) -> None:
        """Keep the session until it ends.

        Args:
            channels: Channels to the coordinator.
            leaving: Set when the agent shuts down; the session then ends with a Goodbye.

        Raises:
            Refused: The coordinator refuses this agent.
            _SessionOver: The session ended in any other way than by `leaving`.
        """
        channel = channels.take()
        stub: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(channel.channel)
        uploads = LogUploads(self._agent.directories, self._agent.runtime.is_over, stub)
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(channel.channel.close)
            closing.push_async_callback(uploads.close)
            try:
                await self._run(stub.Session(self._outgoing()), uploads, channels.replaced(channel), leaving)
            except _SessionMoves:
                channels.retire(uploads.finished(), closing.pop_all())
                raise

    async def _run(
        self, call: "_Call", uploads: LogUploads, replaced: Coroutine[Any, Any, str], leaving: asyncio.Event
    ) -> None:
        try:
            usages = await self._agent.drivers.usages()
            # Nothing may come in between: Hello is the first message, and reports are the changes after it.
            self._times.sent(HELLO)
            self._resources = ResourcesDelivery(self._agent.resources.current)
            self._put(hello(self._agent, self._identity, node_facts(), usages))
            with self._agent.runtime.reporting_to(lambda about: self._put(report(about))):
                welcome = await self._welcome(call)
                await until_first_ends(self._stay(call, welcome, uploads, leaving), _move(replaced))
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSED and not self.welcomed:
                raise Refused(error.details() or error.code().name) from error
            raise _SessionOver(f"{error.code().name}: {explained(error.details() or '')}") from error
        finally:
            replaced.close()
            call.cancel()

    def _put(self, message: agent_pb2.SessionRequest) -> None:
        """Queue a message without waiting."""
        self._requests.put_nowait(message if self._requests.qsize() < OUTGOING_LIMIT else None)

    async def _outgoing(self) -> AsyncIterator[agent_pb2.SessionRequest]:
        while (message := await self._requests.get()) is not None:
            yield message

    async def _welcome(self, call: "_Call") -> agent_pb2.Welcome:
        try:
            async with asyncio.timeout(WELCOME_WITHIN):
                response = await _read(call)
        except TimeoutError:
            raise _SessionOver(f"no Welcome within {WELCOME_WITHIN:g} s") from None
        if response is None or not response.HasField("welcome"):
            raise _SessionOver(await _end_of(call))
        self.welcomed = True
        welcome = response.welcome
        failpoint("agent.after_welcome")
        await self._acknowledged(HELLO)
        await self._note_epoch(welcome.node_epoch)
        log.info("ready", node=self._agent.settings.node_id, epoch=welcome.node_epoch)
        return welcome

    async def _acknowledged(self, sequence: int) -> None:
        self._last_ack = time.monotonic()
        await asyncio.to_thread(self._times.acknowledged, sequence)

    async def _note_epoch(self, epoch: int) -> None:
        try:
            await asyncio.to_thread(self._identity.installation.note_epoch, epoch)
        except OSError as error:
            # The next Hello looks like that of a restored disk. The coordinator checks it; no run is harmed.
            log.error("cannot_note_epoch", epoch=epoch, error=str(error))

    async def _stay(
        self, call: "_Call", welcome: agent_pb2.Welcome, uploads: LogUploads, leaving: asyncio.Event
    ) -> None:
        await until_first_ends(
            self._receive(call, uploads, leaving),
            self._send_heartbeats(max(to_seconds(welcome.heartbeat_interval), SHORTEST_BEAT)),
            self._watch_lease(to_seconds(welcome.lease)),
            self._leave(leaving),
        )

    async def _receive(self, call: "_Call", uploads: LogUploads, leaving: asyncio.Event) -> None:
        while (response := await _read(call)) is not None:
            await self._process(response, uploads)
        if not leaving.is_set():
            # A lost connection looks like a clean end.
            raise _SessionOver(await _end_of(call))

    async def _leave(self, leaving: asyncio.Event) -> None:
        """Send Goodbye when the agent leaves, and let the coordinator end the stream."""
        await leaving.wait()
        self._put(goodbye(self._agent))
        self._requests.put_nowait(None)
        await asyncio.sleep(GOODBYE_WITHIN)

    async def _process(self, response: agent_pb2.SessionResponse, uploads: LogUploads) -> None:
        match response.WhichOneof("message"):
            case "heartbeat_ack":
                self._resources.acknowledged(response.heartbeat_ack.sequence)
                await self._acknowledged(response.heartbeat_ack.sequence)
            case "assign":
                await self._assign(response.assign)
            case "stop":
                stop = response.stop
                key = AttemptKey(stop.run_id, stop.attempt)
                await self._agent.events.put(StopRequested(key, to_seconds(stop.grace), stop.reason))
            case "report_ack":
                key = AttemptKey(response.report_ack.run_id, response.report_ack.attempt)
                await self._agent.events.put(Acknowledged(key))
            case "send_logs":
                uploads.begin(response.send_logs)
            case "refresh_warm_servers":
                self._agent.drivers.refresh_warm_servers(response.refresh_warm_servers.name)
            case "goodbye":
                goodbye = response.goodbye
                pause = random.uniform(0, min(to_seconds(goodbye.redial_within), LONGEST_REDIAL))
                raise _SessionOver(f"the coordinator says goodbye: {goodbye.reason}", pause)
            case other:
                # A newer coordinator may send more than this agent understands.
                log.warning("message_not_understood", message=other)

    async def _assign(self, assign: agent_pb2.Assign) -> None:
        await self._acknowledged(assign.after_heartbeat)
        assignment = Assignment(
            AttemptKey(assign.run_id, assign.attempt),
            identity_of(assign.spec),
            assign.spec,
            start_by=self._times.deadline(assign.after_heartbeat, to_seconds(assign.start_within)),
        )
        await self._agent.events.put(Assigned(assignment))

    async def _send_heartbeats(self, interval: float) -> None:
        agent = self._agent
        sequence = 0
        while True:
            sequence += 1
            load = await asyncio.to_thread(node_load, agent.directories.state)
            usages = await agent.drivers.usages()
            self._times.sent(sequence)
            resources = self._resources.update_for(sequence, agent.resources.current)
            self._put(heartbeat(agent, sequence, load, usages, resources))
            await asyncio.sleep(jittered(interval))

    async def _watch_lease(self, lease: float) -> None:
        """End the session if the coordinator is silent. A live connection proves only a live kernel."""
        left = lease
        while left > 0:
            await asyncio.sleep(left)
            left = self._last_ack + lease - time.monotonic()
        raise _SessionOver(f"no heartbeat was acknowledged for {lease:g} s")


async def _move(replaced: Coroutine[Any, Any, str]) -> None:
    raise _SessionMoves(await replaced, pause=0.0)


_Call = grpc.aio.StreamStreamCall[agent_pb2.SessionRequest, agent_pb2.SessionResponse]


async def _read(call: _Call) -> agent_pb2.SessionResponse | None:
    """Return the next message, or None at the end of the stream.

    Raises:
        _SessionOver: The coordinator sent bytes that are not a message.
    """
    try:
        response = await call.read()
    except asyncio.CancelledError:
        # grpc.aio raises this also when the call was cancelled, not this task.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None
    if response is None:  # gRPC returns this for bytes that cannot be parsed; the call continues
        raise _SessionOver("the coordinator sent bytes that are not a message")
    return response if isinstance(response, agent_pb2.SessionResponse) else None


async def _end_of(call: _Call) -> str:
    code = await call.code()
    return f"{code.name}: {await call.details() or 'the stream ended'}"


async def stay_in_session(agent: Agent, identity: SessionIdentity, leaving: asyncio.Event) -> None:
    """Hold one session after the other until the agent leaves.

    Raises:
        Refused: The coordinator refused this agent before it ever welcomed it. Later refusals are retried.
        InvalidTlsFiles: The certificates cannot be used.
    """
    ever_welcomed = False
    failures = 0
    coordinator = agent.settings.coordinator
    channels = Channels(agent.settings)
    try:
        while not leaving.is_set():
            session = Session(agent, identity)
            pause: float | None = None
            try:
                await session.run(channels, leaving)
            except Refused as refusal:
                if not ever_welcomed:
                    raise
                log.error("refused", reason=str(refusal))
            except _SessionMoves as move:
                pause = move.pause
                log.info("session_moves", reason=str(move))
            except _SessionOver as over:
                pause = over.pause
                log.warning("session_ended", how=str(over), coordinator=coordinator, pause_asked=pause)
            ever_welcomed = ever_welcomed or session.welcomed
            failures = 0 if session.welcomed else failures + 1
            await _wait(leaving, RECONNECT.pause(failures + 1) if pause is None else pause)
    finally:
        await channels.close()


async def _wait(leaving: asyncio.Event, pause: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause):
            await leaving.wait()
