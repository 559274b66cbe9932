"""Recording of audited actions with their outcomes."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Protocol

import grpc

from runyard.coordinator.audit.events import Actor, Done, Event, Failed, Outcome, Refused
from runyard.coordinator.auth.callers import caller_of


class Audit(Protocol):
    """Destination of events."""

    def note(self, event: Event) -> None:
        """Record an event. Never waits and never fails."""
        ...


class Unaudited:
    """Destination that drops all events."""

    def note(self, event: Event) -> None:
        """Do nothing."""


UNAUDITED: Final = Unaudited()
"""For tests."""


def actor_of(context: grpc.aio.ServicerContext[Any, Any]) -> Actor:
    """Return the author of a call that the gate admitted."""
    caller = caller_of(context)
    return Actor(str(caller.identity), caller.peer)


class Entry:
    """An event that waits for its outcome."""

    def __init__(self, audit: Audit, event: Event) -> None:
        self._audit = audit
        self._event: Event | None = event

    def withdraw(self) -> None:
        """Record nothing: there was nothing to decide."""
        self._event = None

    def amend(self, event: Event) -> None:
        """Replace the event by one with fields that became known meanwhile."""
        self._event = event

    def note(self, outcome: Outcome) -> None:
        """Record the event with its outcome."""
        if self._event is not None:
            self._audit.note(replace(self._event, outcome=outcome))


@contextlib.contextmanager
def audited(audit: Audit, event: Event) -> Iterator[Entry]:
    """Record an event with the outcome of the block: done, or refused with the exception's message.

    Args:
        audit: Destination of the event.
        event: The action in the block.
    """
    entry = Entry(audit, event)
    try:
        yield entry
    except Exception as error:
        # `reason` has details that the caller must not get.
        entry.note(Refused(getattr(error, "reason", "") or str(error) or type(error).__name__))
        raise
    except BaseException as error:  # the caller has cancelled the call
        entry.note(Failed(type(error).__name__))
        raise
    entry.note(Done())
