"""State of the fleet: runs, nodes, and the indexes between them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from runyard.coordinator.core.effects import (
    DropRun,
    Effect,
    EndSession,
    SaveNode,
    SaveRun,
    SaveTombstone,
    Send,
)
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.core.model import (
    Instant,
    Node,
    Phase,
    Queued,
    Ready,
    Run,
    Starting,
    Suspect,
    Tombstone,
)
from runyard.coordinator.core.requirements.resources import NOTHING, Resources
from runyard.coordinator.core.scheduling.backfill import recheck
from runyard.coordinator.core.scheduling.config import DEFAULT_CONFIG, SchedulingConfig
from runyard.coordinator.core.scheduling.equivalence_classes import EquivalenceClass
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.reasons import count_reasons
from runyard.coordinator.core.scheduling.run_queue import RunQueue
from runyard.coordinator.core.timers import Timers
from runyard.coordinator.core.transitions import advance, deadline
from runyard.v1 import agent_pb2, run_pb2


class Fleet:
    """All state of the coordinator, in memory, with the effects that the last decisions asked for.

    The functions `on_...` of this package change it; after each of them the runtime takes the effects with
    `take_effects` and carries them out in order.

    Attributes:
        index: The nodes, and what live runs have of them.
        queue: Runs without a node, and the usage of fair shares.
        deadlines: Deadlines of the present phases of runs.
        progress: Progress of the workers of starting runs, as their agents report it.
    """

    def __init__(
        self, leases: LeaseSettings, started: Instant, config: SchedulingConfig = DEFAULT_CONFIG
    ) -> None:
        self.leases = leases
        self.config = config
        self.started = started
        self.runs: dict[str, Run] = {}
        self.nodes: dict[str, Node] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.usage: dict[str, run_pb2.WorkerUsage] = {}
        self.progress: dict[str, str] = {}
        self._verdicts_from = started.monotonic + leases.recovery
        self.last_tick = started.monotonic
        self.index = NodeIndex()
        self.queue = RunQueue(self.index, config)
        self.deadlines: Timers[str] = Timers()
        self._live_by_node: dict[str, set[str]] = {}
        self._reasons: dict[EquivalenceClass, tuple[object, Mapping[str, int]]] = {}
        self._effects: list[Effect] = []

    def restore(
        self, runs: Iterable[Run], nodes: Iterable[Node], tombstones: Mapping[str, Tombstone]
    ) -> None:
        """Load the content of the store. Nodes are silent until they say Hello; none is presumed dead."""
        for node in nodes:
            self.put_node(replace(node, liveness=Suspect(self.started.monotonic)))
        self.restore_runs(runs, tombstones)

    def restore_runs(self, runs: Iterable[Run], tombstones: Mapping[str, Tombstone]) -> None:
        """Return to the runs in the store, after a failed write."""
        self.runs.clear()
        self.usage.clear()
        self.progress.clear()
        self.index.forget_runs()
        self.queue = RunQueue(self.index, self.config)
        self.deadlines.clear()
        self._live_by_node.clear()
        self._reasons.clear()
        for run in sorted(runs, key=lambda run: run.times.launched):
            self._index(run)
        self.tombstones = dict(tombstones)

    def take_effects(self) -> list[Effect]:
        """The effects since the last call, in the order in which they must be carried out."""
        effects, self._effects = self._effects, []
        return effects

    # Queries

    def recovering(self, now: Instant) -> bool:
        """True while a node may still come back with a run that this coordinator does not know."""
        return now.monotonic < self.started.monotonic + self.leases.recovery

    def lease(self, now: Instant) -> float:
        """Seconds of silence after which a node is unreachable; longer while the coordinator recovers."""
        lease = self.leases.lease(len(self.nodes))
        return max(lease, self.leases.recovery) if self.recovering(now) else lease

    def silence(self, node_id: str, now: Instant) -> float:
        """Seconds for which the node's silence counts; 0 while it is in session."""
        node = self.nodes.get(node_id)
        heard = self.started.monotonic if node is None else node.liveness.last_heard
        if node is not None and node.is_ready:
            return 0.0
        return max(0.0, now.monotonic - max(heard, self._verdicts_from))

    def waiting(self) -> list[Run]:
        """The runs without a node, the oldest first."""
        return [self.runs[run_id] for run_id in self.queue.run_ids()]

    def live_on(self, node_id: str) -> list[Run]:
        """The runs that may have a worker on the node."""
        return [self.runs[run_id] for run_id in sorted(self._live_by_node.get(node_id, ()))]

    def slots_used(self, node_id: str) -> int:
        """Number of live attempts on the node."""
        return len(self._live_by_node.get(node_id, ()))

    def allocated(self, node_id: str) -> Resources:
        """Resources that live runs hold of the node."""
        return Resources.of(self.index.taken(node_id))

    def unreachable(self, run: Run) -> bool:
        """True while the run's node is silent, so that nothing new is known of it."""
        return run.is_live and run.place is not None and not self._is_ready(run.place.node)

    def why_not_now(self, run_class: EquivalenceClass) -> Mapping[str, int]:
        """Return the number of nodes by the reason why they cannot take the first run of the class now.

        The result is kept until something changes, since a page of a thousand runs asks a thousand times.
        """
        version = (self.index.version, self.queue.reservations.version, run_class.opened)
        if (known := self._reasons.get(run_class)) is None or known[0] != version:
            known = self._reasons[run_class] = (version, self._count_reasons(run_class))
        return known[1]

    def _count_reasons(self, run_class: EquivalenceClass) -> Mapping[str, int]:
        return count_reasons(
            self.index,
            run_class.matcher,
            clusters=run_class.open_clusters(),
            refused=run_class.key.refused,
            held=self.queue.reservations.reserved_for_others(run_class),
        )

    def _is_ready(self, node_id: str) -> bool:
        node = self.nodes.get(node_id)
        return node is not None and node.is_ready

    def hold_verdicts(self, now: Instant) -> None:
        """Ignore all silence before this moment: the coordinator may have been away."""
        self._verdicts_from = max(self._verdicts_from, now.monotonic)

    # Changes; only the functions `on_...` call these

    def move(self, run: Run, phase: Phase, now: Instant, event: str) -> Run:
        """Advance the run and save it."""
        return self.put(advance(run, phase, now), event)

    def put(self, run: Run, event: str) -> Run:
        """Store the run and save it."""
        self._index(run)
        self._effects.append(SaveRun(run, event))
        return run

    def drop(self, run_id: str) -> None:
        """Forgets a finished run."""
        del self.runs[run_id]
        self._effects.append(DropRun(run_id))

    def put_node(self, node: Node) -> None:
        """Store the node in memory alone, such as its liveness and load."""
        self.nodes[node.node_id] = node
        if self.index.put(node):
            recheck(self.queue, self.index, node.node_id)

    def save_node(self, node: Node) -> None:
        """Store the node and save it."""
        self.put_node(node)
        self._effects.append(SaveNode(node))

    def apply_config(self, config: SchedulingConfig) -> None:
        """Schedule by another configuration; all waiting runs are tried again."""
        self.config = config
        self.queue.apply_config(config)

    def bury(self, run_id: str, tombstone: Tombstone) -> None:
        """Record a tombstone: this run must never start."""
        self.tombstones[run_id] = tombstone
        self._effects.append(SaveTombstone(run_id, tombstone))

    def send(self, node_id: str, message: agent_pb2.SessionResponse) -> None:
        """Send to the node if it is in session; otherwise its next Hello triggers the message again."""
        node = self.nodes.get(node_id)
        if node is not None and isinstance(node.liveness, Ready):
            self._effects.append(Send(node_id, node.liveness.session, message))

    def end_session(self, node: Node, reason: str) -> None:
        """Close the node's session, if it has one."""
        if isinstance(node.liveness, Ready):
            self._effects.append(EndSession(node.node_id, node.liveness.session, reason))

    def _index(self, run: Run) -> None:
        before = self.runs.get(run.run_id)
        self.runs[run.run_id] = run
        if before is not None and isinstance(before.phase, Queued):
            self._leave_queue(before, run)
        if before is None or _holding(before) != _holding(run):
            self._hold(before, run)
        if isinstance(run.phase, Queued) and run.run_id not in self.queue:
            self.queue.add(run)
        if not run.is_live:
            self.usage.pop(run.run_id, None)
        if not isinstance(run.phase, Starting):
            self.progress.pop(run.run_id, None)
        if (late_at := deadline(run)) is None:
            self.deadlines.cancel(run.run_id)
        else:
            self.deadlines.set(run.run_id, late_at)

    def _leave_queue(self, before: Run, run: Run) -> None:
        if (before.phase, before.launch) != (run.phase, run.launch):
            self._reasons.pop(self.queue.class_of(run.run_id), None)
            self.queue.remove(run.run_id)

    def _hold(self, before: Run | None, run: Run) -> None:
        """Move the resources of a run from its former node to its present one."""
        if before is not None and before.is_live and before.place is not None:
            self._live_by_node[before.place.node].discard(before.run_id)
            self.index.release(before.place.node, before.launch.requirements.resources)
            self.queue.release(before.launch.share, before.launch.requirements.resources)
        if run.is_live and run.place is not None:
            self._live_by_node.setdefault(run.place.node, set()).add(run.run_id)
            self.index.allocate(run.place.node, run.launch.requirements.resources)
            self.queue.allocate(run.launch.share, run.launch.requirements.resources)

    def check_invariants(self) -> None:
        """Raises AssertionError if the indices do not agree with the runs. For tests."""
        queued = {run.run_id for run in self.runs.values() if isinstance(run.phase, Queued)}
        assert queued == set(self.queue.run_ids()), f"{queued} != {self.queue.run_ids()}"
        live = {run.run_id: run.place.node for run in self.runs.values() if run.is_live and run.place}
        indexed = {run_id: node for node, ids in self._live_by_node.items() for run_id in ids}
        assert live == indexed, f"{live} != {indexed}"
        assert sum(map(len, self._live_by_node.values())) == len(live), "a run is live on two nodes"
        assert set(self.usage) <= set(live), "usage of a run that is not live"
        starting = {run.run_id for run in self.runs.values() if isinstance(run.phase, Starting)}
        assert set(self.progress) <= starting, "progress of a run that is not starting"
        for node_id in {*self.nodes, *live.values()}:
            total = NOTHING
            for run in self.live_on(node_id):
                total = total.plus(run.launch.requirements.resources)
            assert self.allocated(node_id) == total, f"{node_id}: {self.allocated(node_id)} != {total}"
        assert [known.node for known in self.index.nodes()] == list(self.nodes.values())
        self.index.check()


def _holding(run: Run) -> tuple[object, ...] | None:
    """Return the node, share and resources that the run holds; None if it holds nothing."""
    if not run.is_live or run.place is None:
        return None
    return run.place.node, run.launch.share, run.launch.requirements.resources
