"""Sentences for people: the situation of a run, why it got its node, and which deadline it missed."""

from typing import Final

from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Finished, Queued, Run, Starting
from runyard.coordinator.core.scheduling.config import Strategy
from runyard.coordinator.core.scheduling.equivalence_classes import ClassState, EquivalenceClass
from runyard.coordinator.core.scheduling.node_search import Placement
from runyard.coordinator.core.scheduling.reasons import availability

CALLED: Final = {Strategy.BINPACK: "bin-packing", Strategy.SPREAD: "spreading"}


def situation(fleet: Fleet, run: Run) -> str:
    """Return the situation of the run in one sentence; empty if there is nothing to say."""
    match run.phase:
        case Queued() if run.run_id in fleet.queue:
            return f"waiting: {_why_waiting(fleet, fleet.queue.class_of(run.run_id))}"
        case Queued():
            return ""  # the run has left the queue since this state of it was read
        case Finished(outcome=outcome):
            return outcome.message
        case placed if fleet.unreachable(run):
            return f"node {placed.place.node} is silent; the worker is not presumed dead"
        case _ if run.stop:
            return run.stop.reason
        case Starting():
            return fleet.progress.get(run.run_id, "")
        case _:
            return ""


def _why_waiting(fleet: Fleet, run_class: EquivalenceClass) -> str:
    if run_class.state is ClassState.CLOSED:
        return run_class.key.route.closed
    if run_class.state is ClassState.OVER_QUOTA:
        share = fleet.queue.shares[run_class.key.share]
        return share.over_quota_reason(run_class.resources) or "its share is at its quota"
    return availability(fleet.why_not_now(run_class))


def deadline_message(fleet: Fleet, run: Run) -> str:
    """Return which deadline of its phase the run has missed."""
    limits = run.launch.time_limits
    if isinstance(run.phase, Queued):
        limit = f"{limits.max_queue_time:g} s (max_queue_time)"
        return f"no node could take the run within {limit}; it was {situation(fleet, run)}"
    return f"the worker did not start within {limits.start_timeout:g} s (start_timeout)"


def because(run_class: EquivalenceClass, placement: Placement, strategy: Strategy, now: float) -> str:
    """Return why the first run of a class gets this node.

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
    """Return the clusters that could not take the run."""
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
