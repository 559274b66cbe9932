"""Which node a run goes to: filters that say why not, then the least loaded of what is left."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from runyard.coordinator.core.asks.labels import first_broken
from runyard.coordinator.core.asks.requirements import Requirements
from runyard.coordinator.core.model import (
    Cordoned,
    Draining,
    Lost,
    Node,
    Queued,
    Suspect,
    Unreachable,
)

NAMED = 10
"""How many nodes or clusters a message names; gRPC cuts off errors that name a whole fleet."""


@dataclass(frozen=True)
class Candidate:
    """A node and how many attempts it has."""

    node: Node
    used: int

    @property
    def load(self) -> float:
        return self.used / self.node.offer.slots if self.node.offer.slots else 1.0


Filter = Callable[[Requirements, Node], str | None]
"""Gives the reason why the node cannot take the run, or None."""


def wrong_cluster(wanted: Requirements, node: Node) -> str | None:
    """A run that names a cluster goes nowhere else."""
    return "in another cluster" if wanted.cluster and wanted.cluster != node.cluster else None


def wrong_node(wanted: Requirements, node: Node) -> str | None:
    """A run that names a node goes nowhere else."""
    return "another node" if wanted.node and wanted.node != node.node_id else None


def lacks_label(wanted: Requirements, node: Node) -> str | None:
    """Every rule on labels must hold."""
    broken = first_broken(wanted.labels, dict(node.offer.labels))
    return f"label {broken}" if broken else None


def lacks_driver(wanted: Requirements, node: Node) -> str | None:
    """The node must be able to start workers in the way the run asks for."""
    return None if wanted.driver in node.offer.drivers else f"without driver {wanted.driver}"


def offers_nothing(_: Requirements, node: Node) -> str | None:
    """A node with no slots takes no runs at all."""
    return None if node.offer.slots else "without slots"


LASTING: tuple[Filter, ...] = (wrong_cluster, wrong_node, lacks_label, lacks_driver, offers_nothing)
"""Reasons that waiting does not cure."""


def why_never(wanted: Requirements, node: Node) -> str | None:
    """The first lasting reason against the node, or None if it could take the run some day."""
    for refuse in LASTING:
        if reason := refuse(wanted, node):
            return reason
    return None


def not_in_service(node: Node) -> str | None:
    """Why the node takes nothing new from anybody at this moment, or None."""
    match node.liveness, node.service:
        case Suspect(), _:
            return "suspect"
        case Unreachable(), _:
            return "unreachable"
        case Lost(), _:
            return "lost"
        case _, Draining():
            return "draining"
        case _, Cordoned():
            return "cordoned"
        case _:
            return None


def why_not_now(wanted: Requirements, queued: Queued, candidate: Candidate) -> str | None:
    """The first reason against the node at this moment, or None if it can take the run."""
    if reason := why_never(wanted, candidate.node):
        return reason
    if candidate.node.node_id in dict(queued.refused_by):
        return "that refused it"
    if reason := not_in_service(candidate.node):
        return reason
    if candidate.used >= candidate.node.offer.slots:
        return "full"
    return None


def choose(wanted: Requirements, queued: Queued, candidates: Iterable[Candidate]) -> Node | None:
    """The least loaded node that can take the run now, or None. Ties go to the smaller node ID."""
    fit = [each for each in candidates if why_not_now(wanted, queued, each) is None]
    return min(fit, key=lambda each: (each.load, each.node.node_id)).node if fit else None


def explain(reasons: Iterable[str]) -> str:
    """Counts reasons into one phrase, such as "3 nodes: 2 full, 1 unreachable"."""
    counts = Counter(reasons)
    total = counts.total()
    if not total:
        return "no node has joined yet"
    parts = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"{total} node{'s' if total != 1 else ''}: {parts}"


def what_is_missing(wanted: Requirements, nodes: Mapping[str, Node]) -> str | None:
    """Why no node that ever joined could take the run, in a sentence with a remedy; None if one could."""
    if not nodes:
        return "no node has joined this coordinator yet; start an agent first"
    clusters = {node.cluster for node in nodes.values()}
    if wanted.cluster and wanted.cluster not in clusters:
        return f"no cluster is named {wanted.cluster!r}; known clusters: {_a_few(clusters)}"
    if wanted.node and wanted.node not in nodes:
        return f"no node is named {wanted.node!r}; known nodes: {_a_few(nodes)}"
    reasons = [why_never(wanted, node) for node in nodes.values()]
    if None in reasons:
        return None
    return f"no node matches ({explain(reason for reason in reasons if reason)})"


def _a_few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(ordered[:NAMED]) + more
