"""Gives waiting runs to nodes."""

from runyard.coordinator.core.events.agent_messages import assign
from runyard.coordinator.core.explain.wording import because
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Assigned, Instant, Place
from runyard.coordinator.core.routing.order import cluster_order
from runyard.coordinator.core.routing.rules import Order
from runyard.coordinator.core.scheduling.equivalence_classes import Lane, State
from runyard.coordinator.core.scheduling.node_search import Choice, Quest, search, search_among
from runyard.coordinator.core.scheduling.scheduling_pass import Turns
from runyard.coordinator.core.scheduling.scores import Seeker


def place_waiting(fleet: Fleet, now: Instant) -> None:
    """Places every waiting run that finds a node, in the order of the queue.

    A run that finds none lets others pass. Costs next to nothing where nothing has changed for any run.
    """
    turns = Turns(fleet.queue, fleet.index, now.monotonic)
    while (lane := turns.next()) is not None:
        band = fleet.queue.band_of(lane)
        choice = _find(fleet, now, lane, turns)
        if choice is None:
            turns.failed(band)
        else:
            _give(fleet, now, lane, choice)
            turns.placed(band, choice.node_id)


def _find(fleet: Fleet, now: Instant, lane: Lane, turns: Turns) -> Choice | None:
    """A node for the first run of a lane; where there is none, the lane notes why it waits."""
    queue = fleet.queue
    share = queue.shares[lane.shape.share]
    if share.over_quota(lane.demand.ask.requirements.resources):
        queue.set_state(lane, State.CAPPED)
        return None
    lane.opened = lane.count_open(now.monotonic)
    run = fleet.runs[lane.head.run_id]
    seeker = Seeker(run.run_id, run.launch.requirements, run.launch.location, run.avoided)
    excluded = (*lane.shape.refused, *queue.reservations.kept_from(lane))
    quest = Quest(seeker, lane.demand, _clusters(fleet, lane), excluded, fleet.policy.strategy)
    if lane.state is State.UNTRIED:
        choice = search(fleet.index, quest)
    else:
        choice = search_among(fleet.index, quest, turns.hot[lane.demand])
    if choice is None:
        queue.block(lane, now.monotonic)
    return choice


def _clusters(fleet: Fleet, lane: Lane) -> tuple[str, ...] | None:
    """The clusters that are open to the first run of the lane, the best first; None: any."""
    opened = lane.open_clusters()
    route = lane.shape.route
    if opened is None or route.order is Order.FIRST_FIT:
        return opened
    loads = {name: tally.load for name, tally in fleet.index.tallies(opened)}
    return tuple(name for name in cluster_order(route, lane.head.run_id, loads) if name in opened)


def _give(fleet: Fleet, now: Instant, lane: Lane, choice: Choice) -> None:
    run = fleet.runs[lane.head.run_id]
    place = Place(choice.node_id, choice.cluster, because(lane, choice, fleet.policy.strategy, now.monotonic))
    fleet.queue.note_placed(lane, lane.demand.ask.requirements.resources, now.monotonic)
    run = fleet.move(run, Assigned(place), now, f"assigned to {place.node}")
    assign(fleet, run)
