"""Queue of outgoing messages of one session. It is bounded, so a stuck agent cannot fill the memory."""

import asyncio
from collections.abc import AsyncIterator

from runyard.common.protobuf_time import to_duration
from runyard.v1 import agent_pb2

LIMIT = 1_000
"""Maximum number of queued messages; beyond it the session is closed, and the agent reconnects and syncs."""

REDIAL_WITHIN = 2.0
"""Seconds over which agents spread their reconnects after the coordinator closed their sessions."""


class Outbox:
    """Outgoing half of a session. The runtime puts messages without waiting; one writer drains them."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[agent_pb2.SessionResponse | None] = asyncio.Queue()
        self._closed = False

    def put(self, message: agent_pb2.SessionResponse) -> None:
        """Queue a message; if the queue is full, close the session instead."""
        if self._closed:
            return
        if self._messages.qsize() >= LIMIT:
            self.close("the agent does not keep up with its messages")
        else:
            self._messages.put_nowait(message)

    def close(self, reason: str) -> None:
        """End the session after the queued messages, with a Goodbye that has the reason."""
        if self._closed:
            return
        self._closed = True
        goodbye = agent_pb2.CoordinatorGoodbye(reason=reason, redial_within=to_duration(REDIAL_WITHIN))
        self._messages.put_nowait(agent_pb2.SessionResponse(goodbye=goodbye))
        self._messages.put_nowait(None)

    def hang_up(self) -> None:
        """End the session without a Goodbye: the agent has disconnected."""
        self._closed = True
        self._messages.put_nowait(None)

    async def drain(self) -> AsyncIterator[agent_pb2.SessionResponse]:
        """Yield the messages in order until the session is closed."""
        while (message := await self._messages.get()) is not None:
            yield message
