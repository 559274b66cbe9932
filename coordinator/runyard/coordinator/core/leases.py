"""Leases: how long a silent node is trusted, and when its silence is ignored."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from runyard.common.defaults import KILL_MARGIN_SECONDS
from runyard.coordinator.core.model import Instant, Lost, Node, Ready, Suspect, Unreachable
from runyard.coordinator.core.requirements.requirements import TimeLimits

CLOCK_RATE_ERROR = 0.001
"""Largest relative difference between the rates of two machines' clocks. Crystals are better than 0.0002."""

BRAKE_FROM = 4
"""Number of nodes from which a silent majority points to the coordinator itself."""


@dataclass(frozen=True)
class LeaseSettings:
    """Intervals of heartbeats and leases, in seconds.

    Attributes:
        shortest_interval: Between two heartbeats of one node in a small fleet.
        heartbeats_per_second: What the coordinator takes from the whole fleet; larger fleets beat slower.
        shortest_lease: Silence after which a node counts as unreachable, in a small fleet.
        lost_after: Silence after which a node counts as lost.
        recovery: After a restart of the coordinator, how long every node has to come back before its silence
            means anything.
        start_within: Time within which an assignment must be started.
    """

    shortest_interval: float = 5.0
    heartbeats_per_second: float = 100.0
    shortest_lease: float = 15.0
    lost_after: float = 600.0
    recovery: float = 60.0
    start_within: float = 30.0

    def interval(self, nodes: int) -> float:
        """Seconds between two heartbeats of one node in a fleet of `nodes`."""
        return max(self.shortest_interval, nodes / self.heartbeats_per_second)

    def lease(self, nodes: int) -> float:
        """Seconds of silence after which a node of this fleet is unreachable."""
        return max(self.shortest_lease, 3 * self.interval(nodes))

    def assignment_timeout(self, limits: TimeLimits) -> float:
        """Seconds for which an attempt with these limits may be started once it was assigned."""
        return min(self.start_within, limits.stop_after or self.start_within)


def gone_after(limits: TimeLimits) -> float | None:
    """Seconds of silence after which the node has certainly stopped the worker; None: it never does.

    The node counts from when it sent its last acknowledged heartbeat, the coordinator from when it heard it,
    which is later; so with these margins the node is always first.
    """
    if limits.stop_after is None:
        return None
    return (limits.stop_after + limits.grace) * (1 + CLOCK_RATE_ERROR) + KILL_MARGIN_SECONDS


def hear(node: Node, now: Instant) -> Node:
    """The node, just heard of in its session."""
    if not isinstance(node.liveness, Ready):
        return node
    return replace(node, liveness=replace(node.liveness, last_heard=now.monotonic), last_heard_wall=now.wall)


def suspect(node: Node, back_by: float = 0.0) -> Node:
    """The node after its session broke, or ended with a goodbye that holds until `back_by`."""
    return replace(node, liveness=Suspect(node.liveness.last_heard, back_by))


def silent(node: Node, lease: float, lost_after: float, now: Instant) -> Node | None:
    """The node in the next stage of its silence, or None if it stays where it is."""
    liveness = node.liveness
    silence = now.monotonic - liveness.last_heard
    match liveness:
        case Suspect(back_by=back_by) if now.monotonic < back_by:
            return None
        case Ready() | Suspect() if silence >= lease:
            return replace(node, liveness=Unreachable(liveness.last_heard))
        case Unreachable() if silence >= lost_after:
            return replace(node, liveness=Lost(liveness.last_heard))
        case _:
            return None


def is_storm(nodes: Iterable[Node], lease: float) -> bool:
    """True if over half of the nodes fell silent within one lease of each other.

    Then it is the coordinator that is cut off, more likely than all of them, and nothing is to be concluded.
    """
    counted = [node for node in nodes if not isinstance(node.liveness, Lost)]
    if len(counted) < BRAKE_FROM:
        return False
    fell_silent = sorted(node.liveness.last_heard for node in counted if not node.is_ready)
    majority = len(counted) // 2 + 1
    return any(
        last - first <= lease for first, last in zip(fell_silent, fell_silent[majority - 1 :], strict=False)
    )
