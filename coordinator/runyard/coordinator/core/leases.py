"""How long the coordinator trusts a silent node."""

from dataclasses import dataclass, replace

from runyard.coordinator.core.model import Instant, Node, Ready, Suspect, Unreachable


@dataclass(frozen=True)
class LeasePolicy:
    """The rhythm of heartbeats, in seconds.

    Attributes:
        shortest_interval: Between two heartbeats of one node in a small fleet.
        heartbeats_per_second: What the coordinator takes from the whole fleet; larger fleets beat slower.
        shortest_lease: Silence after which a node counts as unreachable, in a small fleet.
        recovery: After a restart of the coordinator, how long every node has to come back before its silence
            means anything.
    """

    shortest_interval: float = 5.0
    heartbeats_per_second: float = 100.0
    shortest_lease: float = 15.0
    recovery: float = 60.0

    def interval(self, nodes: int) -> float:
        """Seconds between two heartbeats of one node in a fleet of `nodes`."""
        return max(self.shortest_interval, nodes / self.heartbeats_per_second)

    def lease(self, nodes: int) -> float:
        """Seconds of silence after which a node of this fleet is unreachable."""
        return max(self.shortest_lease, 3 * self.interval(nodes))


def hear(node: Node, now: Instant) -> Node:
    """The node, just heard of in its session."""
    if not isinstance(node.liveness, Ready):
        return node
    return replace(node, liveness=replace(node.liveness, last_heard=now.monotonic), last_heard_wall=now.wall)


def suspect(node: Node) -> Node:
    """The node after its session broke."""
    return replace(node, liveness=Suspect(node.liveness.last_heard))


def expire(node: Node, lease: float, now: Instant) -> Node | None:
    """The node as unreachable if its lease has run out, else None."""
    if isinstance(node.liveness, Unreachable) or now.monotonic < node.liveness.last_heard + lease:
        return None
    return replace(node, liveness=Unreachable(node.liveness.last_heard))
