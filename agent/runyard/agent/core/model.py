"""Attempts that an agent holds, each in exactly one phase."""

import enum
from dataclasses import dataclass, field

from runyard.v1 import placement_pb2, run_pb2


@dataclass(frozen=True, order=True)
class AttemptKey:
    """Name of one attempt of one run. The attempt number is a fencing token: the highest one is valid."""

    run_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.run_id}/{self.attempt}"


class OutcomeKind(enum.Enum):
    """Kind of an outcome. The names are those of `runyard.v1.OutcomeKind` without the prefix."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OOM_KILLED = "oom_killed"
    START_FAILED = "start_failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    NODE_LOST = "node_lost"
    EXIT_UNKNOWN = "exit_unknown"
    NODE_SHUTDOWN = "node_shutdown"


@dataclass(frozen=True)
class Outcome:
    """Result of an attempt, with the known details."""

    kind: OutcomeKind
    message: str
    exit_code: int | None = None
    signal: int | None = None
    stderr_tail: str = ""
    peak_rss_bytes: int = 0
    memory_limit_bytes: int = 0
    reason_code: str = ""
    """Machine-readable reason where the kind is not enough: field `cause` of `runyard.v1.Outcome`."""


@dataclass(frozen=True)
class LaunchIdentity:
    """Part of a launch by which a coordinator that lost its state can adopt the attempt."""

    resume_number: int
    deployment: str
    job: str
    location: str
    requirements: placement_pb2.Requirements = field(default_factory=placement_pb2.Requirements)
    """Requirements whose resources the attempt holds on the node."""


UNKNOWN_LAUNCH = LaunchIdentity(resume_number=0, deployment="", job="", location="")
"""Identity of an attempt that was stopped before its launch arrived."""


@dataclass(frozen=True)
class Assignment:
    """Request of the coordinator to start an attempt on this node."""

    key: AttemptKey
    identity: LaunchIdentity
    spec: run_pb2.LaunchSpec = field(repr=False)
    start_by: float
    """Deadline for the start, in seconds of the caller's clock. After it, the assignment is void."""


@dataclass(frozen=True)
class Accepted:
    """The attempt is on disk, and its worker has certainly not been started."""


@dataclass(frozen=True)
class Starting:
    """The driver has the attempt; a worker may exist at any moment."""

    progress: str = ""
    """Current step of a slow start, in one sentence; empty otherwise."""


@dataclass(frozen=True)
class Running:
    """The worker process exists."""

    pid: int


@dataclass(frozen=True)
class Stopping:
    """The driver is stopping the worker; `pid` is None if no worker was seen."""

    pid: int | None


@dataclass(frozen=True)
class Finished:
    """The worker has ended, and its outcome is on disk."""

    outcome: Outcome


AttemptPhase = Accepted | Starting | Running | Stopping | Finished
"""Phase of an attempt: one type per phase, which holds exactly what is known in it."""


@dataclass(frozen=True)
class HeldAttempt:
    """Attempt on this agent's disk whose end the coordinator has not acknowledged."""

    key: AttemptKey
    identity: LaunchIdentity
    phase: AttemptPhase = field(default_factory=Accepted)
    devices: tuple[str, ...] = ()
    """GPUs that are reserved for it until it ends."""
