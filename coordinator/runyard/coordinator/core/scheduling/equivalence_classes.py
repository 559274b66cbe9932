"""Runs that wait for the same, in the order of their coming."""

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
    """A run's place in its lane; tickets sort by age.

    Attributes:
        queued_since: On the monotonic clock, which starts anew with the coordinator.
        launched: Seconds since the epoch; tells the age of runs that an earlier coordinator took.
        number: Counts up with every ticket.
    """

    queued_since: float
    launched: float
    number: int
    run_id: str


OLDER_THAN_ALL: Final = QueueEntry(float("-inf"), 0.0, 0, "")


@dataclass(frozen=True)
class EquivalenceKey:
    """What runs of one lane have in common: if the first of them finds no node, no other does.

    Attributes:
        route: Where the runs may go; `ANYWHERE` if they name the cluster themselves.
        clusters: Those of the route, in the order in which they open.
        refused: Nodes that refused the launch, or could not start it.
        share: Under which name the runs share the fleet with others.
    """

    ask: Ask
    route: Route
    clusters: tuple[str, ...]
    refused: tuple[str, ...]
    priority: int
    share: str

    @classmethod
    def of(cls, run: Run) -> Self:
        """The shape of a run in the queue."""
        assert isinstance(run.phase, Queued)
        launch = run.launch
        route = Route(closed=launch.route.closed) if launch.requirements.cluster else launch.route
        refused = tuple(sorted({node_id for node_id, _ in run.refused_by}))
        clusters = tuple(each.name for each in route.clusters)
        if route.spill_after > 0:
            # By weight, each run draws an order of its own; without spilling all clusters are open anyway.
            clusters = cluster_order(route, launch.run_id, {})
        return cls(Ask.of(launch), route, clusters, refused, launch.priority, launch.share)


class ClassState(enum.Enum):
    """What is known of the first run of a lane."""

    UNTRIED = "untried"
    """Nothing: it has to look at all nodes."""
    BLOCKED = "blocked"
    """No node can take it, but for those that became freer since."""
    OVER_QUOTA = "over_quota"
    """Its share has all that it may have."""
    CLOSED = "closed"
    """Its route leads nowhere for now."""


class EquivalenceClass:
    """Runs of one shape.

    Attributes:
        opened: How many clusters of the route were open when it was last tried.
        placed_at: When a run of the lane last got a node, in monotonic seconds.
        filed: Under which ticket its band has it.
        passed_over: The node that was reserved for it in vain.
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
        """What each of its runs takes."""
        return self.key.ask.requirements.resources

    @property
    def head(self) -> QueueEntry:
        """The run that is tried next: the oldest."""
        while self._entries.get(self._heap[0].run_id) != self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0]

    def entries(self) -> list[QueueEntry]:
        """All its runs, the oldest first."""
        return sorted(self._entries.values())

    def add(self, entry: QueueEntry) -> None:
        """Takes a run in."""
        self._entries[entry.run_id] = entry
        heapq.heappush(self._heap, entry)

    def discard(self, run_id: str) -> None:
        """Lets a run go."""
        del self._entries[run_id]

    def count_open(self, now: float) -> int:
        """How many clusters, of those in `shape.clusters`, are open to the first run."""
        return open_count(self.key.route, now - self.head.queued_since)

    def open_clusters(self) -> tuple[str, ...] | None:
        """The clusters that were open when it was last tried; None: any."""
        return self.key.clusters[: self.opened] if self.key.clusters else None
