"""What placement must come to, found out in the plainest way: by asking every node about every run."""

from collections import Counter
from collections.abc import Iterator

from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Node, Queued, Run
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.order import cluster_order, open_count
from runyard.coordinator.core.scheduling.config import Strategy
from runyard.coordinator.core.scheduling.filters import FREE, Ask, NodeClass, View, reason_against
from runyard.coordinator.core.scheduling.scores import Candidate, ScoringContext, class_score, needs_on, score


def live(fleet: Fleet) -> Iterator[Run]:
    """The runs that hold something."""
    return (run for run in fleet.runs.values() if run.is_live)


def taken(fleet: Fleet, node_id: str) -> Counter[str]:
    """What the runs of a node hold, added up one by one."""
    sums: Counter[str] = Counter()
    for run in live(fleet):
        if run.place is not None and run.place.node == node_id:
            sums.update(dict(run.launch.requirements.resources))
    return sums


def free(fleet: Fleet, node: Node) -> dict[str, int]:
    """What is left of a node."""
    used = taken(fleet, node.node_id)
    return {name: amount - used[name] for name, amount in node.capacity.resources}


def over_quota(fleet: Fleet, run: Run) -> bool:
    """True if the run would lift its share above what it may have."""
    quota = fleet.config.quotas.get(run.launch.share)
    if quota is None:
        return False
    held: Counter[str] = Counter()
    for other in live(fleet):
        if other.launch.share == run.launch.share:
            held.update(dict(other.launch.requirements.resources))
    more = run.launch.requirements.resources
    return any(more[name] and held[name] + more[name] > most for name, most in quota.limit)


def open_clusters(run: Run, now: float) -> list[str] | None:
    """The clusters that are open to a run; None: any."""
    if cluster := run.launch.requirements.cluster:
        return [cluster]
    route = run.launch.route
    if not route.clusters:
        return None
    # Those that open by and by do so in an order that the load has no say in.
    return list(cluster_order(route, run.run_id, {})[: open_count(route, now - run.queued_since)])


def is_held(fleet: Fleet, run: Run, node_id: str) -> bool:
    """True if the node is reserved for others, and the run is not urgent enough to have it all the same."""
    reservation = fleet.queue.reservations.on(node_id)
    if reservation is None or run.launch.priority > reservation.above:
        return False
    return reservation.run_class is not fleet.queue.class_of(run.run_id)


def view(fleet: Fleet, run: Run, node: Node, now: float) -> View:
    """A node as the run sees it."""
    assert isinstance(run.phase, Queued)
    clusters = open_clusters(run, now)
    return View(
        node=node,
        free=free(fleet, node),
        open=clusters is None or node.cluster in clusters,
        refused=node.node_id in dict(run.refused_by),
        held=is_held(fleet, run, node.node_id),
    )


def reasons(fleet: Fleet, run: Run, now: float) -> Counter[str]:
    """Why each node cannot take the run."""
    ask = Ask.of(run.launch)
    return Counter(reason_against(ask, view(fleet, run, node, now)) or FREE for node in fleet.nodes.values())


def idle_for(fleet: Fleet, run: Run, now: float) -> list[str]:
    """The nodes that could take a waiting run at this moment."""
    if run.launch.route.closed or over_quota(fleet, run):
        return []
    ask = Ask.of(run.launch)
    return [
        node.node_id
        for node in fleet.nodes.values()
        if reason_against(ask, view(fleet, run, node, now)) is None
    ]


def best_node(views: list[View], ask: Ask, context: ScoringContext, strategy: Strategy) -> str | None:
    """The node of the highest worth, by rating every one that can take the run."""
    scored = []
    for each in views:
        if reason_against(ask, each) is None:
            node, node_class = each.node, NodeClass.of(each.node)
            candidate = Candidate(
                node_id=node.node_id,
                node_class=node_class,
                total=tuple(amount for _, amount in node.capacity.resources),
                free=tuple(each.free[name] for name, _ in node.capacity.resources),
                needs=needs_on(ask.requirements, node_class),
                warm=context.location in node.warm_for,
            )
            scored.append(
                (-score(context, candidate, strategy, class_score(context, node_class)), node.node_id)
            )
    return min(scored)[1] if scored else None


def exceeds(node: Node, used: Counter[str], run: Resources) -> list[str]:
    """What of the run's resources the node has given more of than it has."""
    return [name for name, _ in run if used[name] > node.capacity.resources[name]]
