"""Model of the fleet: runs, each in exactly one phase, and nodes, each in one state of liveness."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from runyard.coordinator.core.requirements.context import without_secrets
from runyard.coordinator.core.requirements.requirements import (
    CompiledRequirements,
    RequirementLayer,
    TimeLimits,
)
from runyard.coordinator.core.requirements.resources import NOTHING, SLOTS, Resources
from runyard.coordinator.core.routing.rules import ANYWHERE, Route
from runyard.v1 import fleet_pb2, run_pb2


@dataclass(frozen=True)
class Instant:
    """One reading of both clocks, taken by the runtime.

    Deadlines use `monotonic` (seconds) alone, so a stepped wall clock changes nothing; `wall` (seconds since
    the epoch) is shown to people.
    """

    monotonic: float
    wall: float


@dataclass(frozen=True)
class Launch:
    """One accepted LaunchRun call.

    Attributes:
        requirements: Result of all layers under the current rules; so are `time_limits` and `route`.
        digest: SHA-256 of the spec without its signature; equal for a repeated launch.
        spec: Specification for the agent. Its secrets are dropped when the run has finished.
        layers: The launch's own layers, lowest precedence first; defaults and rules come below.
        priority: As the run's tag says; a higher one goes first.
        share: Name of the fair share that the run counts against.
        launched_by: Identity of the client; empty if unknown.
    """

    run_id: str
    resume_number: int
    deployment: str
    job: str
    location: str
    requirements: CompiledRequirements
    time_limits: TimeLimits
    digest: str
    spec: run_pb2.LaunchSpec = field(repr=False)
    repository: str = ""
    layers: tuple[RequirementLayer, ...] = ()
    route: Route = ANYWHERE
    priority: int = 0
    share: str = ""
    launched_by: str = ""

    @property
    def tags(self) -> Mapping[str, str]:
        """Tags of the run."""
        return self.spec.tags

    def without_secrets(self) -> "Launch":
        """Return the launch without arguments, environment, and their copies, which only its worker needs."""
        public = run_pb2.LaunchSpec()
        public.CopyFrom(self.spec)
        public.ClearField("worker_args")
        public.ClearField("environment")
        public.ClearField("signed")
        public.ClearField("execution_config_json")
        public.code_origin.container_context_json = without_secrets(public.code_origin.container_context_json)
        return replace(self, spec=public)


@dataclass(frozen=True)
class Place:
    """Node of an attempt, and why it was chosen."""

    node: str
    cluster: str
    because: str = ""


@dataclass(frozen=True)
class Queued:
    """Waits for a node."""


@dataclass(frozen=True)
class Assigned:
    """Assigned to a node that has not confirmed it, and may or may not have started the worker."""

    place: Place


@dataclass(frozen=True)
class Starting:
    """The node has the attempt on its disk."""

    place: Place


@dataclass(frozen=True)
class Running:
    """The worker process exists."""

    place: Place
    pid: int


@dataclass(frozen=True)
class Stopping:
    """The node shall stop the attempt, or never start it. `pid` is 0 while no worker was seen."""

    place: Place
    pid: int = 0


@dataclass(frozen=True)
class Finished:
    """The attempt is provably over. `place` is None if no node ever had it, `pid` 0 if no worker was seen."""

    outcome: run_pb2.Outcome
    place: Place | None
    pid: int = 0


Placed = Assigned | Starting | Running | Stopping
Phase = Queued | Assigned | Starting | Running | Stopping | Finished


@dataclass(frozen=True)
class StopRequest:
    """Request to end the attempt, with the outcome if the stop ends it."""

    reason: str
    outcome: run_pb2.OutcomeKind.ValueType


@dataclass(frozen=True)
class Tombstone:
    """A stop that came before the launch. `at` is in seconds since the epoch."""

    reason: str
    at: float


@dataclass(frozen=True)
class Times:
    """Times of events, in seconds since the epoch on the coordinator's wall clock. For display only."""

    launched: float
    assigned: float | None = None
    running: float | None = None
    finished: float | None = None


@dataclass(frozen=True)
class Run:
    """A run's latest attempt.

    Attributes:
        attempt: The fencing number; counts up with every new attempt, for whatever reason.
        queued_since: Monotonic time of the launch, from which `max_queue_time` counts.
        since: Monotonic time of the last change of phase, from which `start_timeout` counts: STARTING keeps
            the time of ASSIGNED. Both times restart with the coordinator.
        reported: The outcome is settled in Dagster.
        avoided: Nodes that failed earlier attempts; others are preferred.
        refused_by: Nodes that refused earlier attempts of this launch or could not start them, and why.
    """

    launch: Launch
    attempt: int
    phase: Phase
    times: Times
    queued_since: float
    since: float
    stop: StopRequest | None = None
    reported: bool = False
    avoided: tuple[str, ...] = ()
    refused_by: tuple[tuple[str, str], ...] = ()

    @property
    def run_id(self) -> str:
        return self.launch.run_id

    @property
    def place(self) -> Place | None:
        """Node of the attempt; None while it is queued."""
        return None if isinstance(self.phase, Queued) else self.phase.place

    @property
    def pid(self) -> int:
        """Process ID of the worker on its node; 0 while none was seen."""
        return self.phase.pid if isinstance(self.phase, Running | Stopping | Finished) else 0

    @property
    def is_live(self) -> bool:
        """True while a node may have a worker for the attempt."""
        return isinstance(self.phase, Placed)


@dataclass(frozen=True)
class Ready:
    """In session, and heard of within the lease."""

    session: int
    last_heard: float


@dataclass(frozen=True)
class Suspect:
    """The session is broken; the lease has not run out.

    Attributes:
        back_by: Monotonic time until which an agent that said goodbye asked to be trusted; 0 if it did not.
    """

    last_heard: float
    back_by: float = 0.0


@dataclass(frozen=True)
class Unreachable:
    """The lease ran out. Unknown is not dead: the node's runs stay as they are."""

    last_heard: float


@dataclass(frozen=True)
class Lost:
    """Silent for so long that an operator should check. Its runs stay, unless they set stop_after."""

    last_heard: float


Liveness = Ready | Suspect | Unreachable | Lost


@dataclass(frozen=True)
class Open:
    """The node takes runs."""


@dataclass(frozen=True)
class Cordoned:
    """The node takes no new runs."""


@dataclass(frozen=True)
class Draining:
    """The node takes no new runs, and its runs may finish.

    Attributes:
        deadline: Seconds from `since` after which they are stopped; None: never.
        since: Monotonic time of the drain; starts again with the coordinator.
    """

    deadline: float | None
    since: float


Service = Open | Cordoned | Draining
"""Service state of a node, set by the operator."""


@dataclass(frozen=True)
class Pressure:
    """The node is short of something, and takes no new runs until it has enough again.

    Attributes:
        kind: `memory`, `disk` or `pids`; of a newer agent it may be empty.
        message: How much is left, for people.
    """

    kind: str
    message: str

    @property
    def reason(self) -> str:
        """Reason why the node takes no runs."""
        return f"{self.kind} pressure".lstrip()


@dataclass(frozen=True)
class NodeResources:
    """Resources and properties that a node offers to runs.

    Attributes:
        taints: Runs that do not tolerate every taint stay away: `key` or `key=value`.
        resources: Amounts that all runs together may take.
        reserved: Amounts kept back for the system; for display.
        largest_run: Limits for one run, by resource. Only gateways set them.
        gateway: The agent represents a whole cluster, whose own scheduler places the workers.
    """

    labels: tuple[tuple[str, str], ...] = ()
    drivers: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()
    resources: Resources = NOTHING
    reserved: Resources = NOTHING
    largest_run: Resources = NOTHING
    gateway: bool = False

    @property
    def slots(self) -> int:
        """Number of runs that may be live at once."""
        return self.resources[SLOTS]


@dataclass(frozen=True)
class Node:
    """A place that can host run workers.

    Attributes:
        installation: ID of the agent's state directory; distinguishes two agents with one node ID.
        epoch: Counts the sessions of the node, over restarts of the coordinator.
        confirmed_epoch: The latest epoch that is on the agent's disk; a heartbeat of that session proves it.
        service: Service state, set by the operator.
        heartbeat: Sequence of the last heartbeat in the present session.
        warm_servers: Its warm servers, as of its last message.
        warm_for: Code locations with a ready warm server.
        pressures: Resources that it is short of; known while it is in session.
    """

    node_id: str
    cluster: str
    installation: str
    boot_id: str
    epoch: int
    capacity: NodeResources
    facts: fleet_pb2.NodeFacts
    liveness: Liveness
    last_heard_wall: float
    confirmed_epoch: int = 0
    service: Service = field(default_factory=Open)
    heartbeat: int = 0
    load: fleet_pb2.NodeLoad = field(default_factory=fleet_pb2.NodeLoad)
    warm_servers: tuple[fleet_pb2.WarmServer, ...] = ()
    warm_for: frozenset[str] = frozenset()
    pressures: tuple[Pressure, ...] = ()

    @property
    def is_ready(self) -> bool:
        return isinstance(self.liveness, Ready)
