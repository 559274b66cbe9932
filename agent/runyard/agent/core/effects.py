"""Effects: instructions of the core to the runtime, which carries them out in order."""

from dataclasses import dataclass

from runyard.agent.core.model import Assignment, AttemptKey, HeldAttempt


@dataclass(frozen=True)
class Accept:
    """Check an assignment and write it to disk.

    The runtime answers with `on_accepted`, `on_found` if it was on disk already, or `on_not_accepted`.
    """

    assignment: Assignment


@dataclass(frozen=True)
class Bury:
    """Write to disk that the attempt must never start; then call `on_found` with the attempt on disk."""

    key: AttemptKey
    reason: str


@dataclass(frozen=True)
class Start:
    """Start the worker through its driver."""

    key: AttemptKey


@dataclass(frozen=True)
class StopWorker:
    """Stop the worker through its driver, with `grace` seconds between SIGTERM and SIGKILL."""

    key: AttemptKey
    grace: float
    reason: str


@dataclass(frozen=True)
class Report:
    """Report the attempt to the coordinator. Without a session, the next Hello reports it."""

    attempt: HeldAttempt


@dataclass(frozen=True)
class Reject:
    """Report to the coordinator that this agent will never start the attempt."""

    key: AttemptKey
    message: str
    reason_code: str = ""
    """Machine-readable reason: field `cause` of `runyard.v1.Rejection`."""


@dataclass(frozen=True)
class Forget:
    """Mark the attempt's directory as acknowledged, so that it can be cleaned up."""

    key: AttemptKey


Effect = Accept | Bury | Start | StopWorker | Report | Reject | Forget
