"""AgentService: the sessions of the node agents."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from google.protobuf.message import DecodeError

from runyard.common.protobuf_time import to_seconds
from runyard.common.security.identity import Role
from runyard.coordinator.auth.callers import Caller, NotIdentified, NotPermitted, caller_of
from runyard.coordinator.core.agent_reports import Hello
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.on_session import (
    on_disconnect,
    on_goodbye,
    on_heartbeat,
    on_hello,
    on_rejection,
    on_status,
)
from runyard.coordinator.grpc.errors import LONGEST_TEXT, Context
from runyard.coordinator.grpc.log_relay import LogRelay
from runyard.coordinator.grpc.messages.agent_reports import attempt_status_of, heartbeat_of, hello_of
from runyard.coordinator.runtime.outbox import Outbox
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.store import StoreFull
from runyard.v1 import agent_pb2, agent_pb2_grpc

HELLO_WITHIN = 10.0
"""Seconds for an agent to send Hello after it has opened its stream."""

log = structlog.get_logger("runyard.coordinator.agents")

Requests = AsyncIterator[agent_pb2.SessionRequest]


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """See `runyard/v1/agent.proto` for the contract of each method."""

    def __init__(self, runtime: Runtime, logs: LogRelay) -> None:
        self._runtime = runtime
        self._logs = logs

    async def Session(
        self, request_iterator: Requests, context: Context
    ) -> AsyncIterator[agent_pb2.SessionResponse]:
        requests = aiter(request_iterator)
        hello = await self._hello(requests)
        require_own_node(caller_of(context), hello)
        outbox = Outbox()
        with self._runtime.session(outbox) as session:
            await self._runtime.decide(lambda fleet, at: on_hello(fleet, at, session, hello))
            log.info("agent_joined", node=hello.node_id, cluster=hello.cluster, peer=context.peer())
            self._warn_of_old_disk(hello)
            reading = asyncio.create_task(self._read(requests, hello.node_id, session, outbox))
            try:
                async for message in outbox.drain():
                    yield message
            finally:
                reading.cancel()
                await self._leave(hello.node_id, session)

    def _warn_of_old_disk(self, hello: Hello) -> None:
        confirmed = self._runtime.fleet.nodes[hello.node_id].confirmed_epoch
        if hello.last_epoch < confirmed:
            log.warning(
                "disk_restored", node=hello.node_id, epoch_there=hello.last_epoch, epoch_here=confirmed
            )

    async def _hello(self, requests: Requests) -> Hello:
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                first = await anext(requests, None)
        except TimeoutError:
            first = None
        if first is None or not first.HasField("hello"):
            raise InvalidField("hello", "must be the first message of a session")
        return hello_of(first.hello)

    async def _read(self, requests: Requests, node_id: str, session: int, outbox: Outbox) -> None:
        """Process the agent's messages in order until the stream ends or fails."""
        try:
            async for request in requests:
                if request.HasField("goodbye"):
                    await self._on_goodbye(request.goodbye, node_id, session)
                    break
                # With a full disk nothing can be recorded; the agent repeats it in its next heartbeat.
                with contextlib.suppress(StoreFull):
                    await self._process(request, node_id, session)
        except asyncio.CancelledError:
            raise
        except NotIdentified as refusal:
            log.warning("session_refused", node=node_id, reason=str(refusal))
            outbox.close(str(refusal))
        except (DecodeError, InvalidField) as error:
            log.warning("message_refused", node=node_id, reason=str(error)[:LONGEST_TEXT])
        except Exception:
            log.exception("session_failed", node=node_id)
        outbox.hang_up()

    async def _on_goodbye(self, goodbye: agent_pb2.AgentGoodbye, node_id: str, session: int) -> None:
        log.info("agent_says_goodbye", node=node_id, reason=goodbye.reason)
        back_within = to_seconds(goodbye.expect_back_within)
        await self._runtime.decide(lambda fleet, at: on_goodbye(fleet, at, node_id, session, back_within))

    async def _process(self, request: agent_pb2.SessionRequest, node_id: str, session: int) -> None:
        decide = self._runtime.decide
        match request.WhichOneof("message"):
            case "heartbeat":
                beat = heartbeat_of(request.heartbeat)
                await decide(lambda fleet, at: on_heartbeat(fleet, at, node_id, session, beat))
            case "report" if request.report.HasField("status"):
                status = attempt_status_of(request.report.status)
                await decide(lambda fleet, at: on_status(fleet, at, node_id, session, status))
            case "report" if request.report.HasField("rejection"):
                rejection = request.report.rejection
                log.info("assignment_refused", node=node_id, run_id=rejection.run_id, reason=rejection.reason)
                await decide(lambda fleet, at: on_rejection(fleet, at, node_id, session, rejection))
            case other:
                # A newer agent may send messages that this coordinator does not know.
                log.warning("message_not_understood", node=node_id, message=other)

    async def _leave(self, node_id: str, session: int) -> None:
        log.info("agent_left", node=node_id)
        with contextlib.suppress(StoreFull):
            await asyncio.shield(
                asyncio.ensure_future(
                    self._runtime.decide(lambda fleet, _: on_disconnect(fleet, node_id, session))
                )
            )

    async def PushLogs(
        self, request_iterator: AsyncIterator[agent_pb2.PushLogsRequest], context: Context
    ) -> agent_pb2.PushLogsResponse:
        caller = caller_of(context)
        await self._logs.receive(request_iterator, caller.may_speak_for)
        return agent_pb2.PushLogsResponse()


def require_own_node(caller: Caller, hello: Hello) -> None:
    """Check that an agent opens a session for its own node. All later messages belong to that node.

    Raises:
        NotPermitted: The certificate belongs to another node or cluster.
    """
    if not caller.may_speak_for(hello.node_id):
        refusal = f"{caller.identity} may not speak for node {hello.node_id!r}"
    elif caller.role is not Role.LOCAL and caller.identity.cluster != hello.cluster:
        refusal = f"{caller.identity} may not speak for cluster {hello.cluster!r}"
    else:
        return
    log.warning("session_refused", node=hello.node_id, peer=caller.peer, reason=refusal)
    raise NotPermitted(f"{refusal}; the settings of the agent and its certificate must agree")
