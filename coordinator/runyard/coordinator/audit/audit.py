"""The audit log: who did what, to which run, node or token, and what came of it. One event for each decision.

What is not here is nobody's business: no value of a variable, no argument of a worker, no token but its ID.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, Final, Protocol, assert_never

import grpc

from runyard.common.secrets import masked
from runyard.coordinator.auth.callers import caller_of
from runyard.v1 import run_pb2

LONGEST_TEXT: Final = 600
"""Characters of any text in a line: what callers send does not fill the disk."""


@dataclass(frozen=True)
class Actor:
    """Who did it.

    Attributes:
        who: URI of the identity, `local` for this machine's own, or `unknown`.
        peer: Address, as gRPC writes it.
    """

    who: str
    peer: str = ""


def who(context: grpc.aio.ServicerContext[Any, Any]) -> Actor:
    """Who makes a call that was let in."""
    caller = caller_of(context)
    return Actor(str(caller.identity), caller.peer)


@dataclass(frozen=True)
class Done:
    """It was done."""


@dataclass(frozen=True)
class Refused:
    """It was not done, and why."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """It went wrong; whether it was done is not known."""

    reason: str


Outcome = Done | Refused | Failed


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of what is noted."""

    action: ClassVar[str]

    by: Actor
    outcome: Outcome = field(default_factory=Done)


@dataclass(frozen=True, kw_only=True)
class LaunchAsked(Event):
    """A run was launched, or a worker to resume it."""

    action = "run.launch"
    run: str
    resume_number: int = 0
    deployment: str = ""
    job: str = ""


def launch_asked(by: Actor, spec: run_pb2.LaunchSpec) -> LaunchAsked:
    """What is noted of a launch."""
    return LaunchAsked(
        by=by,
        run=spec.run_id,
        resume_number=spec.resume_number,
        deployment=spec.deployment,
        job=spec.code_origin.job,
    )


@dataclass(frozen=True, kw_only=True)
class TerminationAsked(Event):
    """A run was to end."""

    action = "run.terminate"
    run: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeCordoned(Event):
    """A node takes no new runs."""

    action = "node.cordon"
    node: str


@dataclass(frozen=True, kw_only=True)
class NodeUncordoned(Event):
    """A node takes runs again."""

    action = "node.uncordon"
    node: str


@dataclass(frozen=True, kw_only=True)
class NodeDrained(Event):
    """A node takes no new runs, and its own are to be over by a deadline."""

    action = "node.drain"
    node: str


@dataclass(frozen=True, kw_only=True)
class NodeFenced(Event):
    """Somebody vouches that a node is off; its runs are over."""

    action = "node.fence"
    node: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class WarmServersRefreshed(Event):
    """A node makes its warm servers anew."""

    action = "node.refresh_warm_servers"
    node: str


@dataclass(frozen=True, kw_only=True)
class NodeRevoked(Event):
    """No certificate that a node has counts any more."""

    action = "node.revoke"
    node: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class CertificateRevoked(Event):
    """One certificate does not count any more."""

    action = "certificate.revoke"
    serial: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenCreated(Event):
    """Somebody may join with a token."""

    action = "token.create"
    token: str = ""
    cluster: str = ""
    node: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenDeleted(Event):
    """Nobody can join with a token any more."""

    action = "token.delete"
    token: str


@dataclass(frozen=True, kw_only=True)
class NodeJoined(Event):
    """A node came with a token for a certificate."""

    action = "node.join"
    token: str = ""
    node: str = ""
    cluster: str = ""
    serial: str = ""


@dataclass(frozen=True, kw_only=True)
class CertificateRenewed(Event):
    """A node got its next certificate."""

    action = "certificate.renew"
    node: str
    serial: str = ""


@dataclass(frozen=True, kw_only=True)
class CallDenied(Event):
    """A call was not let in."""

    action = "call.denied"
    method: str


@dataclass(frozen=True, kw_only=True)
class LinesLost(Event):
    """Events that nobody will read of: too many waited for the disk."""

    action = "audit.lost"
    count: int


COORDINATOR: Final = Actor("coordinator")
"""Who notes what nobody asked for."""


def line_of(event: Event, at: datetime) -> bytes:
    """The line of an event, without secrets and of bounded length."""
    values = asdict(event)
    for name in ("by", "outcome"):
        values.pop(name)
    line: dict[str, Any] = {
        "at": at.isoformat(timespec="milliseconds"),
        "who": event.by.who,
        "peer": event.by.peer,
        "action": event.action,
        **values,
        **_outcome(event.outcome),
    }
    return json.dumps(_bounded(line), ensure_ascii=False).encode(errors="replace") + b"\n"


def _outcome(outcome: Outcome) -> dict[str, str]:
    match outcome:
        case Done():
            return {"outcome": "done"}
        case Refused(reason):
            return {"outcome": "refused", "reason": reason}
        case Failed(reason):
            return {"outcome": "failed", "reason": reason}
        case _:
            assert_never(outcome)


def _bounded(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: masked(value)[:LONGEST_TEXT] if isinstance(value, str) else value for key, value in line.items()
    }


class Audit(Protocol):
    """Where events are noted."""

    def note(self, event: Event) -> None:
        """Notes an event. Never waits, and never fails."""
        ...


class Unaudited:
    """Notes nothing."""

    def note(self, event: Event) -> None:
        """Does nothing."""


UNAUDITED: Final = Unaudited()
"""For tests."""


class Entry:
    """What is about to be noted."""

    def __init__(self, audit: Audit, event: Event) -> None:
        self._audit = audit
        self._event: Event | None = event

    def withdraw(self) -> None:
        """There was nothing to decide: nothing is noted."""
        self._event = None

    def amend(self, event: Event) -> None:
        """Notes this instead: more has become known while it was done."""
        self._event = event

    def note(self, outcome: Outcome) -> None:
        """Notes what became of it."""
        if self._event is not None:
            self._audit.note(replace(self._event, outcome=outcome))


@contextlib.contextmanager
def audited(audit: Audit, event: Event) -> Iterator[Entry]:
    """Notes an event with what became of it: done, or refused for the reason that the block raised.

    Args:
        audit: Where.
        event: What is tried in the block.
    """
    entry = Entry(audit, event)
    try:
        yield entry
    except Exception as error:
        # Strangers are told less than the log is.
        entry.note(Refused(getattr(error, "reason", "") or str(error) or type(error).__name__))
        raise
    except BaseException as error:  # the caller has gone meanwhile
        entry.note(Failed(type(error).__name__))
        raise
    entry.note(Done())
