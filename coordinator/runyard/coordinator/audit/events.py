"""Events of the audit log: one for each decision. docs/secrets.md lists their fields on disk.

Events hold no values of variables, no arguments of workers, and no secrets of tokens.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from runyard.v1 import run_pb2


@dataclass(frozen=True)
class Actor:
    """Author of an action.

    Attributes:
        who: URI of the identity, `local` for local callers, or `unknown`.
        peer: Address as gRPC writes it.
    """

    who: str
    peer: str = ""


@dataclass(frozen=True)
class Done:
    """The action was done."""


@dataclass(frozen=True)
class Refused:
    """The action was not done."""

    message: str


@dataclass(frozen=True)
class Failed:
    """The action failed midway; it may have been done."""

    message: str


Outcome = Done | Refused | Failed


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events."""

    action: ClassVar[str]

    by: Actor
    outcome: Outcome = field(default_factory=Done)


@dataclass(frozen=True, kw_only=True)
class LaunchRequested(Event):
    """Launch of a run, or of a worker that resumes it."""

    action = "run.launch"
    run: str
    resume_number: int = 0
    deployment: str = ""
    job: str = ""


def launch_requested(by: Actor, spec: run_pb2.LaunchSpec) -> LaunchRequested:
    """Return the event of a launch."""
    return LaunchRequested(
        by=by,
        run=spec.run_id,
        resume_number=spec.resume_number,
        deployment=spec.deployment,
        job=spec.code_origin.job,
    )


@dataclass(frozen=True, kw_only=True)
class TerminationRequested(Event):
    """Request to terminate a run. `message` is the caller's reason."""

    action = "run.terminate"
    run: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeCordoned(Event):
    """Cordon of a node."""

    action = "node.cordon"
    node: str


@dataclass(frozen=True, kw_only=True)
class NodeUncordoned(Event):
    """Uncordon of a node."""

    action = "node.uncordon"
    node: str


@dataclass(frozen=True, kw_only=True)
class NodeDrained(Event):
    """Drain of a node."""

    action = "node.drain"
    node: str


@dataclass(frozen=True, kw_only=True)
class NodeFenced(Event):
    """Fence of a node. `message` is the operator's reason."""

    action = "node.fence"
    node: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class WarmServersRefreshed(Event):
    """Refresh of a node's warm servers."""

    action = "node.refresh_warm_servers"
    node: str


@dataclass(frozen=True, kw_only=True)
class NodeRevoked(Event):
    """Revocation of all certificates of a node. `message` is the admin's reason."""

    action = "node.revoke"
    node: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class CertificateRevoked(Event):
    """Revocation of one certificate. `message` is the admin's reason."""

    action = "certificate.revoke"
    serial: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenCreated(Event):
    """Creation of a join token."""

    action = "token.create"
    token: str = ""
    cluster: str = ""
    node: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenDeleted(Event):
    """Deletion of a join token."""

    action = "token.delete"
    token: str


@dataclass(frozen=True, kw_only=True)
class NodeJoined(Event):
    """Attempt of a node to join with a token."""

    action = "node.join"
    token: str = ""
    node: str = ""
    cluster: str = ""
    serial: str = ""


@dataclass(frozen=True, kw_only=True)
class CertificateRenewed(Event):
    """Renewal of a node's certificate."""

    action = "certificate.renew"
    node: str
    serial: str = ""


@dataclass(frozen=True, kw_only=True)
class CallDenied(Event):
    """Call that the gate refused."""

    action = "call.denied"
    method: str


@dataclass(frozen=True, kw_only=True)
class EventsDropped(Event):
    """Number of events that were dropped because too many waited for the disk."""

    action = "audit.lost"
    count: int


COORDINATOR: Final = Actor("coordinator")
"""Author of events that no caller caused."""
