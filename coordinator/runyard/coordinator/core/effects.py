"""Effects: requests of the core to the runtime, which carries out each batch as persist, send, answer."""

from dataclasses import dataclass

from runyard.coordinator.core.model import Node, Run, Tombstone
from runyard.v1 import agent_pb2


@dataclass(frozen=True)
class SaveRun:
    """Write the run and one line of its history; watchers hear of it once it is on disk."""

    run: Run
    event: str


@dataclass(frozen=True)
class DropRun:
    """Delete the run and its history."""

    run_id: str


@dataclass(frozen=True)
class SaveNode:
    """Write the durable part of a node: its identity, epoch and resources."""

    node: Node


@dataclass(frozen=True)
class SaveTombstone:
    """Write that a run unknown so far must never start."""

    run_id: str
    tombstone: Tombstone


@dataclass(frozen=True)
class Send:
    """Send to the node's agent, if this session is still its session."""

    node_id: str
    session: int
    message: agent_pb2.SessionResponse


@dataclass(frozen=True)
class EndSession:
    """Close a session that the core no longer counts."""

    node_id: str
    session: int
    reason: str


Effect = SaveRun | DropRun | SaveNode | SaveTombstone | Send | EndSession
