"""What the core asks of the agent's runtime, one thing at a time and in this order."""

from dataclasses import dataclass, field

from runyard.agent.core.model import AttemptKey, HeldAttempt, LaunchIdentity
from runyard.v1 import run_pb2


@dataclass(frozen=True)
class Accept:
    """Write the attempt to disk; then `on_accepted`, or `on_found` if it was there, or `on_not_accepted`."""

    key: AttemptKey
    identity: LaunchIdentity
    spec: run_pb2.LaunchSpec = field(repr=False)


@dataclass(frozen=True)
class Bury:
    """Write to disk that the attempt must never start; then `on_found` with what the disk has."""

    key: AttemptKey
    reason: str


@dataclass(frozen=True)
class Start:
    """Have the driver start the worker."""

    key: AttemptKey


@dataclass(frozen=True)
class StopWorker:
    """Have the driver stop the worker, with `grace` seconds between SIGTERM and SIGKILL."""

    key: AttemptKey
    grace: float
    reason: str


@dataclass(frozen=True)
class Report:
    """Tell the coordinator, if in session; otherwise the next Hello will."""

    attempt: HeldAttempt


@dataclass(frozen=True)
class Reject:
    """Tell the coordinator that this agent will never start the attempt."""

    key: AttemptKey
    reason: str
    why: str = ""
    """One word for programs; see `runyard.v1.Rejection`."""


@dataclass(frozen=True)
class Forget:
    """Mark the attempt's directory as acknowledged: from now on it may be cleaned up."""

    key: AttemptKey


Effect = Accept | Bury | Start | StopWorker | Report | Reject | Forget
