"""Events of operators and admins: cordon, drain, uncordon, fence and expel nodes."""

from dataclasses import replace

from runyard.coordinator.core.errors import NodeStillSpeaks, UnknownNode
from runyard.coordinator.core.events.attempt_end import finish
from runyard.coordinator.core.events.place_waiting import place_waiting
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.leases import suspect
from runyard.coordinator.core.model import Cordoned, Draining, Instant, Lost, Node, Open
from runyard.v1 import run_pb2


def on_cordon(fleet: Fleet, now: Instant, node_id: str) -> Node:
    """Event: cordon -> the node takes no new runs.

    Raises:
        UnknownNode: It never joined.
    """
    return _serve(fleet, now, replace(_find(fleet, node_id), service=Cordoned()))


def on_uncordon(fleet: Fleet, now: Instant, node_id: str) -> Node:
    """Event: uncordon -> the node takes runs again.

    Raises:
        UnknownNode: It never joined.
    """
    return _serve(fleet, now, replace(_find(fleet, node_id), service=Open()))


def on_drain(fleet: Fleet, now: Instant, node_id: str, deadline: float | None) -> Node:
    """Event: drain -> the node takes no new runs; after `deadline` seconds, the remaining ones are stopped.

    Raises:
        UnknownNode: It never joined.
    """
    return _serve(fleet, now, replace(_find(fleet, node_id), service=Draining(deadline, now.monotonic)))


def on_fence(fleet: Fleet, now: Instant, node_id: str, reason: str) -> int:
    """Event: fence, by which an operator confirms that the node is off -> its runs are lost.

    Returns:
        How many runs it ended.

    Raises:
        UnknownNode: It never joined.
        NodeStillSpeaks: It is in session, so its workers may well be alive.
    """
    node = _find(fleet, node_id)
    if node.is_ready:
        raise NodeStillSpeaks(
            f"node {node_id} is in session, so it is not off; drain it, or stop its runs or its agent first"
        )
    ended = fleet.live_on(node_id)
    for run in ended:
        outcome = run_pb2.Outcome(
            kind=run_pb2.OUTCOME_KIND_NODE_LOST, message=f"node {node_id} was fenced: {reason}"
        )
        finish(fleet, now, run, outcome)
    fleet.put_node(replace(node, liveness=Lost(node.liveness.last_heard)))
    return len(ended)


def on_revocation(fleet: Fleet, node_id: str, reason: str) -> None:
    """Event: the node's certificate was revoked -> its session ends. Its runs are not presumed dead."""
    node = fleet.nodes.get(node_id)
    if node is not None and node.is_ready:
        fleet.end_session(node, reason)
        fleet.put_node(suspect(node))


def _find(fleet: Fleet, node_id: str) -> Node:
    node = fleet.nodes.get(node_id)
    if node is None:
        raise UnknownNode(f"no node {node_id!r} has ever joined this coordinator")
    return node


def _serve(fleet: Fleet, now: Instant, node: Node) -> Node:
    fleet.save_node(node)
    place_waiting(fleet, now)
    return node
