"""Queue of the events that the runtime takes one by one."""

import asyncio
from dataclasses import dataclass

from runyard.agent.core.model import Assignment, AttemptKey, AttemptPhase

COMMANDS_WAITING = 1_000
"""Number of the coordinator's commands that can wait for the disk before the session stops reading."""


@dataclass(frozen=True)
class Assigned:
    """The coordinator assigns an attempt."""

    assignment: Assignment


@dataclass(frozen=True)
class StopRequested:
    """The coordinator stops an attempt, with `grace` seconds between SIGTERM and SIGKILL."""

    key: AttemptKey
    grace: float
    reason: str


@dataclass(frozen=True)
class Acknowledged:
    """The coordinator has stored the end of an attempt."""

    key: AttemptKey


@dataclass(frozen=True)
class PhaseChanged:
    """An attempt entered a phase."""

    key: AttemptKey
    phase: AttemptPhase


Command = Assigned | StopRequested | Acknowledged
Event = Command | PhaseChanged


class EventQueue:
    """Events in the order of their arrival. Sessions and drivers put them in, the runtime takes them."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._room = asyncio.Semaphore(COMMANDS_WAITING)

    async def put(self, command: Command) -> None:
        """Queue a command of the coordinator; wait while too many are queued."""
        await self._room.acquire()
        self._events.put_nowait(command)

    def on_change(self, key: AttemptKey, phase: AttemptPhase) -> None:
        """Queue a driver's update without waiting: attempts have few phases. See `drivers.base.OnChange`."""
        self._events.put_nowait(PhaseChanged(key, phase))

    async def take(self) -> Event:
        """Remove and return the next event; wait for it."""
        event = await self._events.get()
        if not isinstance(event, PhaseChanged):
            self._room.release()
        return event
