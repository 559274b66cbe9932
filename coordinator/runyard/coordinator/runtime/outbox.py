"""What waits to be sent on one session: bounded, so that a stuck agent cannot eat up the memory."""

import asyncio
from collections.abc import AsyncIterator

from runyard.coordinator.core.events.agent_messages import duration
from runyard.v1 import agent_pb2

LIMIT = 1_000
"""Messages that may wait on one session; a session that falls further behind is closed and syncs anew."""

REDIAL_WITHIN = 2.0
"""Seconds over which agents spread their return after the coordinator closed their sessions."""


class Outbox:
    """The outgoing half of a session. Written by the runtime without waiting, drained by one writer."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[agent_pb2.SessionResponse | None] = asyncio.Queue()
        self._closed = False

    def put(self, message: agent_pb2.SessionResponse) -> None:
        """Queues a message; if too many wait already, the session is ended instead."""
        if self._closed:
            return
        if self._messages.qsize() >= LIMIT:
            self.close("the agent does not keep up with its messages")
        else:
            self._messages.put_nowait(message)

    def close(self, reason: str) -> None:
        """Ends the session after what is queued, with a Goodbye that gives the reason."""
        if self._closed:
            return
        self._closed = True
        goodbye = agent_pb2.CoordinatorGoodbye(reason=reason, redial_within=duration(REDIAL_WITHIN))
        self._messages.put_nowait(agent_pb2.SessionResponse(goodbye=goodbye))
        self._messages.put_nowait(None)

    def hang_up(self) -> None:
        """Ends the session at once: the agent is gone."""
        self._closed = True
        self._messages.put_nowait(None)

    async def drain(self) -> AsyncIterator[agent_pb2.SessionResponse]:
        """The messages in order, until the session is closed."""
        while (message := await self._messages.get()) is not None:
            yield message
