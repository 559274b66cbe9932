"""Why a run is where it is, in a sentence."""

from typing import Final

from runyard.coordinator.core.scheduling.config import Strategy
from runyard.coordinator.core.scheduling.equivalence_classes import EquivalenceClass
from runyard.coordinator.core.scheduling.node_search import Placement

CALLED: Final = {Strategy.BINPACK: "bin-packing", Strategy.SPREAD: "spreading"}


def because(run_class: EquivalenceClass, placement: Placement, strategy: Strategy, now: float) -> str:
    """Why the first run of a lane gets this node.

    Args:
        now: Monotonic seconds.
    """
    many = placement.among > 1
    parts = [f"best of {placement.among} free nodes by {CALLED[strategy]}" if many else "the only free node"]
    if placement.warm_for:
        parts.append(f"warm for {placement.warm_for}")
    waited = now - run_class.head.queued_since
    after = f"after {show_seconds(waited)} in the queue" if waited >= 1.0 else ""
    if routed := _routed(run_class, placement):
        parts.append(f"{routed}{', ' if after else ''}{after}{_spilled(run_class, placement)}")
    elif after:
        parts.append(after)
    return "; ".join(parts)


def _routed(run_class: EquivalenceClass, placement: Placement) -> str:
    route = run_class.key.route
    if not route.rule and len(route.clusters) <= 1:
        return ""
    rule = f"rule {route.rule}" if route.rule else ""
    cluster = f"cluster {placement.cluster}" if route.clusters else ""
    return ": ".join(part for part in (rule, cluster) if part)


def _spilled(run_class: EquivalenceClass, placement: Placement) -> str:
    """Which clusters the run could not have."""
    if run_class.key.route.spill_after <= 0 or placement.cluster not in run_class.key.clusters:
        return ""
    before = run_class.key.clusters[: run_class.key.clusters.index(placement.cluster)]
    return f" spilled from {' and '.join(before)}" if before else ""


def show_seconds(seconds: float) -> str:
    """`40 s`, `2 min`, `3 h`: in the largest unit of which there is at least one."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
