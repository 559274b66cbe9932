"""Reports of agents as the core takes them: already checked and converted from the wire."""

from dataclasses import dataclass, field

from runyard.coordinator.core.model import NodeResources, Pressure
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.v1 import fleet_pb2, run_pb2


@dataclass(frozen=True)
class AttemptStatus:
    """State of one attempt on its node.

    Attributes:
        pid: Process ID of the worker; 0 before it runs.
        outcome: Counts if the phase is FINISHED.
        usage: None if it was not measured.
        requirements: For a coordinator that has to adopt the attempt, as are the fields of its launch.
        progress: Reason in words why a worker that is STARTING has not begun; may be empty.
    """

    run_id: str
    attempt: int
    phase: run_pb2.Phase.ValueType
    pid: int
    outcome: run_pb2.Outcome
    usage: run_pb2.WorkerUsage | None
    progress: str
    resume_number: int
    deployment: str
    job: str
    location: str
    requirements: CompiledRequirements


@dataclass(frozen=True)
class Hello:
    """First report of a session.

    Attributes:
        protocol_min: With `protocol_max`, the range of protocol versions that the agent speaks.
        attempts: Every attempt on the agent's disk whose end was not acknowledged.
        last_epoch: Largest epoch on the agent's disk.
    """

    node_id: str
    cluster: str
    installation_id: str
    boot_id: str
    protocol_min: int
    protocol_max: int
    capacity: NodeResources
    facts: fleet_pb2.NodeFacts
    attempts: tuple[AttemptStatus, ...]
    last_epoch: int
    warm_servers: tuple[fleet_pb2.WarmServer, ...]
    pressures: tuple[Pressure, ...]


@dataclass(frozen=True)
class Heartbeat:
    """Periodic report.

    Attributes:
        sequence: Counts up within the session.
        attempts: The full set, as in Hello.
        capacity: None if it has not changed since the last report.
    """

    sequence: int
    load: fleet_pb2.NodeLoad = field(default_factory=fleet_pb2.NodeLoad)
    attempts: tuple[AttemptStatus, ...] = ()
    capacity: NodeResources | None = None
    warm_servers: tuple[fleet_pb2.WarmServer, ...] = ()
    pressures: tuple[Pressure, ...] = ()
