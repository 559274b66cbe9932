"""Equivalence classes of waiting runs (as in Borg): if the first finds no node, no other does."""

import enum
import heapq
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from runyard.coordinator.core.model import Queued, Run
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.order import cluster_order, open_count
from runyard.coordinator.core.routing.rules import Route
from runyard.coordinator.core.scheduling.filters import Ask
from runyard.coordinator.core.scheduling.node_classes import NodeMatcher


class QueueEntry(NamedTuple):
    """Entry of a run in its class; entries sort by age.

    Attributes:
        queued_since: On the monotonic clock, which restarts with the coordinator.
        launched: Seconds since the epoch; orders runs that were launched before a restart.
        number: Counts up with every entry.
    """

    queued_since: float
    launched: float
    number: int
    run_id: str


OLDER_THAN_ALL: Final = QueueEntry(float("-inf"), 0.0, 0, "")


@dataclass(frozen=True)
class EquivalenceKey:
    """Properties that runs of one class share; they decide which nodes can take a run and when it is served.

    Attributes:
        route: Where the runs may go; `ANYWHERE` if they name the cluster themselves.
        clusters: Clusters of the route, in the order in which they open.
        refused: Nodes that refused the launch, or could not start it.
        share: Name of the fair share that the runs count against.
    """

    ask: Ask
    route: Route
    clusters: tuple[str, ...]
    refused: tuple[str, ...]
    priority: int
    share: str

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the key of a waiting run."""
        assert isinstance(run.phase, Queued)
        launch = run.launch
        route = Route(closed=launch.route.closed) if launch.requirements.cluster else launch.route
        refused = tuple(sorted({node_id for node_id, _ in run.refused_by}))
        clusters = tuple(each.name for each in route.clusters)
        if route.spill_after > 0:
            # With weights, each run draws its own order; without spilling, all clusters are open anyway.
            clusters = cluster_order(route, launch.run_id, {})
        return cls(Ask.of(launch), route, clusters, refused, launch.priority, launch.share)


class ClassState(enum.Enum):
    """State of the first run of a class."""

    UNTRIED = "untried"
    """Not tried yet: needs a search over all nodes."""
    BLOCKED = "blocked"
    """No node can take it, except perhaps nodes freed since."""
    OVER_QUOTA = "over_quota"
    """Its share is at its quota."""
    CLOSED = "closed"
    """Its route allows no cluster at present."""


class EquivalenceClass:
    """Waiting runs with the same key.

    Attributes:
        opened: Number of clusters of the route that were open at the last try.
        placed_at: Monotonic time of the last placement of one of its runs.
        sorted_by: Entry by which its priority level sorts it.
        failed_node: The node whose reservation did not help.
    """

    def __init__(self, key: EquivalenceKey, matcher: NodeMatcher) -> None:
        self.key = key
        self.matcher = matcher
        self.state = ClassState.CLOSED if key.route.closed else ClassState.UNTRIED
        self.opened = 0
        self.placed_at = float("-inf")
        self.sorted_by: QueueEntry | None = None
        self.failed_node = ""
        self._entries: dict[str, QueueEntry] = {}
        self._heap: list[QueueEntry] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def resources(self) -> Resources:
        """Resources that each of its runs takes."""
        return self.key.ask.requirements.resources

    @property
    def head(self) -> QueueEntry:
        """Entry of the oldest run, which is tried next."""
        while self._entries.get(self._heap[0].run_id) != self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0]

    def entries(self) -> list[QueueEntry]:
        """Return its entries, the oldest first."""
        return sorted(self._entries.values())

    def add(self, entry: QueueEntry) -> None:
        """Add a run."""
        self._entries[entry.run_id] = entry
        heapq.heappush(self._heap, entry)

    def discard(self, run_id: str) -> None:
        """Remove a run."""
        del self._entries[run_id]

    def count_open(self, now: float) -> int:
        """Return how many of `key.clusters` are open to the first run."""
        return open_count(self.key.route, now - self.head.queued_since)

    def open_clusters(self) -> tuple[str, ...] | None:
        """Return the clusters that were open at the last try; None: any."""
        return self.key.clusters[: self.opened] if self.key.clusters else None
