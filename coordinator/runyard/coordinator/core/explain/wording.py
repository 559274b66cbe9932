"""Why a run is where it is, in a sentence."""

from typing import Final

from runyard.coordinator.core.scheduling.equivalence_classes import Lane
from runyard.coordinator.core.scheduling.node_search import Choice
from runyard.coordinator.core.scheduling.policy import Strategy

CALLED: Final = {Strategy.BINPACK: "bin-packing", Strategy.SPREAD: "spreading"}


def because(lane: Lane, choice: Choice, strategy: Strategy, now: float) -> str:
    """Why the first run of a lane gets this node.

    Args:
        now: Monotonic seconds.
    """
    many = choice.among > 1
    parts = [f"best of {choice.among} free nodes by {CALLED[strategy]}" if many else "the only free node"]
    if choice.warm_for:
        parts.append(f"warm for {choice.warm_for}")
    waited = now - lane.head.queued_since
    after = f"after {show_seconds(waited)} in the queue" if waited >= 1.0 else ""
    if routed := _routed(lane, choice):
        parts.append(f"{routed}{', ' if after else ''}{after}{_spilled(lane, choice)}")
    elif after:
        parts.append(after)
    return "; ".join(parts)


def _routed(lane: Lane, choice: Choice) -> str:
    route = lane.shape.route
    if not route.rule and len(route.clusters) <= 1:
        return ""
    rule = f"rule {route.rule}" if route.rule else ""
    cluster = f"cluster {choice.cluster}" if route.clusters else ""
    return ": ".join(part for part in (rule, cluster) if part)


def _spilled(lane: Lane, choice: Choice) -> str:
    """Which clusters the run could not have."""
    if lane.shape.route.spill_after <= 0 or choice.cluster not in lane.shape.clusters:
        return ""
    before = lane.shape.clusters[: lane.shape.clusters.index(choice.cluster)]
    return f" spilled from {' and '.join(before)}" if before else ""


def show_seconds(seconds: float) -> str:
    """`40 s`, `2 min`, `3 h`: in the largest unit of which there is at least one."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
