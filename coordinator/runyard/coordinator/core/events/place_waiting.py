"""Assignment of waiting runs to nodes."""

from runyard.coordinator.core.events.agent_messages import assign
from runyard.coordinator.core.explain.wording import because
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Assigned, Instant, Place
from runyard.coordinator.core.routing.order import cluster_order
from runyard.coordinator.core.routing.rules import Order
from runyard.coordinator.core.scheduling.equivalence_classes import ClassState, EquivalenceClass
from runyard.coordinator.core.scheduling.node_search import Placement, PlacementRequest, search, search_among
from runyard.coordinator.core.scheduling.scheduling_pass import SchedulingPass
from runyard.coordinator.core.scheduling.scores import ScoringContext


def place_waiting(fleet: Fleet, now: Instant) -> None:
    """Assign every waiting run for which there is a node, in queue order.

    A run without a node lets others pass (backfill). Costs next to nothing if nothing has changed.
    """
    scheduling_pass = SchedulingPass(fleet.queue, fleet.index, now.monotonic)
    while (run_class := scheduling_pass.next()) is not None:
        level = fleet.queue.level_of(run_class)
        placement = _find(fleet, now, run_class, scheduling_pass)
        if placement is None:
            scheduling_pass.failed(level)
        else:
            _give(fleet, now, run_class, placement)
            scheduling_pass.placed(level, placement.node_id)


def _find(
    fleet: Fleet, now: Instant, run_class: EquivalenceClass, scheduling_pass: SchedulingPass
) -> Placement | None:
    """Return a node for the first run of a class, or None after noting why it waits."""
    queue = fleet.queue
    share = queue.shares[run_class.key.share]
    if share.over_quota_reason(run_class.resources):
        queue.set_state(run_class, ClassState.OVER_QUOTA)
        return None
    run_class.opened = run_class.count_open(now.monotonic)
    run = fleet.runs[run_class.head.run_id]
    context = ScoringContext(run.run_id, run.launch.requirements, run.launch.location, run.avoided)
    excluded = (*run_class.key.refused, *queue.reservations.reserved_for_others(run_class))
    request = PlacementRequest(
        context, run_class.matcher, _clusters(fleet, run_class), excluded, fleet.config.strategy
    )
    if run_class.state is ClassState.UNTRIED:
        placement = search(fleet.index, request)
    else:
        placement = search_among(fleet.index, request, scheduling_pass.freed[run_class.matcher])
    if placement is None:
        queue.block(run_class, now.monotonic)
    return placement


def _clusters(fleet: Fleet, run_class: EquivalenceClass) -> tuple[str, ...] | None:
    """Return the clusters that are open to the first run of the class, the best first; None: any."""
    opened = run_class.open_clusters()
    route = run_class.key.route
    if opened is None or route.order is Order.FIRST_FIT:
        return opened
    loads = {name: tally.load for name, tally in fleet.index.tallies(opened)}
    return tuple(name for name in cluster_order(route, run_class.head.run_id, loads) if name in opened)


def _give(fleet: Fleet, now: Instant, run_class: EquivalenceClass, placement: Placement) -> None:
    run = fleet.runs[run_class.head.run_id]
    place = Place(
        placement.node_id,
        placement.cluster,
        because(run_class, placement, fleet.config.strategy, now.monotonic),
    )
    fleet.queue.record_placement(run_class, run_class.resources, now.monotonic)
    run = fleet.move(run, Assigned(place), now, f"assigned to {place.node}")
    assign(fleet, run)
