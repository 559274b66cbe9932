"""What an agent holds: attempts, each in exactly one phase."""

import enum
from dataclasses import dataclass, field

from runyard.v1 import placement_pb2


@dataclass(frozen=True, order=True)
class AttemptKey:
    """Names one attempt of one run. The attempt number is the fencing number: the higher one is right."""

    run_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.run_id}/{self.attempt}"


class OutcomeKind(enum.Enum):
    """How an attempt ended. The names are those of `runyard.v1.OutcomeKind` without the prefix."""

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
    """How an attempt ended, with what is known of the cause."""

    kind: OutcomeKind
    message: str
    exit_code: int | None = None
    signal: int | None = None
    stderr_tail: str = ""
    peak_rss_bytes: int = 0
    memory_limit_bytes: int = 0
    cause: str = ""
    """A word for programs, where the rest does not tell; see `runyard.v1.Outcome`."""


@dataclass(frozen=True)
class LaunchIdentity:
    """The part of a launch that lets a coordinator without a memory adopt the attempt."""

    resume_number: int
    deployment: str
    job: str
    location: str
    requirements: placement_pb2.Requirements = field(default_factory=placement_pb2.Requirements)
    """What the attempt holds of the node."""


UNKNOWN_LAUNCH = LaunchIdentity(resume_number=0, deployment="", job="", location="")
"""Of an attempt that was stopped before its launch arrived."""


@dataclass(frozen=True)
class Accepted:
    """On disk; the worker was provably not started yet."""


@dataclass(frozen=True)
class Starting:
    """Handed to the driver; there may be a worker at any moment."""

    progress: str = ""
    """What keeps the worker from beginning, in one sentence, if it takes long."""


@dataclass(frozen=True)
class Running:
    """The worker process exists."""

    pid: int


@dataclass(frozen=True)
class Stopping:
    """The driver was told to stop the worker; `pid` is None while no worker was seen."""

    pid: int | None


@dataclass(frozen=True)
class Finished:
    """The worker is over, and the disk says how."""

    outcome: Outcome


AttemptPhase = Accepted | Starting | Running | Stopping | Finished
"""One type per phase: each holds exactly what is known in it."""


@dataclass(frozen=True)
class HeldAttempt:
    """One attempt on this agent's disk whose end the coordinator has not acknowledged."""

    key: AttemptKey
    identity: LaunchIdentity
    phase: AttemptPhase = field(default_factory=Accepted)
    devices: tuple[str, ...] = ()
    """The GPUs that nobody else has until it is over."""
