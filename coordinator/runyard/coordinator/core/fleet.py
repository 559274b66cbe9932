"""The fleet as the coordinator knows it: runs, nodes, and the indices between them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from runyard.coordinator.core.asks.requirements import Requirements
from runyard.coordinator.core.asks.resources import Resources
from runyard.coordinator.core.effects import (
    DropRun,
    Effect,
    EndSession,
    SaveNode,
    SaveRun,
    SaveTombstone,
    Send,
)
from runyard.coordinator.core.leases import LeasePolicy
from runyard.coordinator.core.model import (
    Finished,
    Instant,
    Node,
    Phase,
    Queued,
    Ready,
    Run,
    Suspect,
    Tombstone,
)
from runyard.coordinator.core.placement.filters import Candidate, explain, why_not_now
from runyard.coordinator.core.policy import WITHOUT_RULES, PlacementPolicy
from runyard.coordinator.core.transitions import advance
from runyard.v1 import agent_pb2, run_pb2


class Fleet:
    """All state of the coordinator, in memory, with the effects that the last decisions asked for.

    The functions `on_...` of this package change it; after each of them the shell takes the effects with
    `take_effects` and carries them out in order.
    """

    def __init__(
        self, leases: LeasePolicy, started: Instant, policy: PlacementPolicy = WITHOUT_RULES
    ) -> None:
        self.leases = leases
        self.policy = policy
        self.started = started
        self.runs: dict[str, Run] = {}
        self.nodes: dict[str, Node] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.usage: dict[str, run_pb2.WorkerUsage] = {}
        self._verdicts_from = started.monotonic + leases.recovery
        self.last_tick = started.monotonic
        self._waiting: dict[str, None] = {}
        self._live_by_node: dict[str, set[str]] = {}
        self._explained: dict[tuple[Requirements, Queued], str] = {}
        self._effects: list[Effect] = []

    def restore(
        self, runs: Iterable[Run], nodes: Iterable[Node], tombstones: Mapping[str, Tombstone]
    ) -> None:
        """Takes up what the store holds. Nodes are silent until they say Hello, and none is presumed dead."""
        for node in nodes:
            self.nodes[node.node_id] = replace(node, liveness=Suspect(self.started.monotonic))
        self.restore_runs(runs, tombstones)

    def restore_runs(self, runs: Iterable[Run], tombstones: Mapping[str, Tombstone]) -> None:
        """Goes back to the runs as the store holds them, after a write that failed."""
        self.runs.clear()
        self.usage.clear()
        self._waiting.clear()
        self._live_by_node.clear()
        self._explained.clear()
        for run in sorted(runs, key=lambda run: run.times.launched):
            self._index(run)
        self.tombstones = dict(tombstones)

    def take_effects(self) -> list[Effect]:
        """The effects since the last call, in the order in which they must be carried out."""
        effects, self._effects = self._effects, []
        return effects

    # What the fleet knows

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
        """The runs without a node, in the order in which they are placed."""
        return [self.runs[run_id] for run_id in self._waiting]

    def live_on(self, node_id: str) -> list[Run]:
        """The runs that may have a worker on the node."""
        return [self.runs[run_id] for run_id in sorted(self._live_by_node.get(node_id, ()))]

    def slots_used(self, node_id: str) -> int:
        """How many attempts the node has."""
        return len(self._live_by_node.get(node_id, ()))

    def allocated(self, node_id: str) -> Resources:
        """What live runs have reserved of the node."""
        total = Resources()
        for run in self.live_on(node_id):
            total = total.plus(run.launch.requirements.resources)
        return total

    def candidates(self) -> list[Candidate]:
        """Every node with its load."""
        return [Candidate(node, self.slots_used(node.node_id)) for node in self.nodes.values()]

    def unreachable(self, run: Run) -> bool:
        """True while the run's node is silent, so that nothing new is known of it."""
        return run.is_live and run.place is not None and not self._is_ready(run.place.node)

    def news(self, run: Run) -> str:
        """The run's situation in one sentence."""
        match run.phase:
            case Queued() as queued:
                return f"waiting: {self._why_waiting(run.launch.requirements, queued)}"
            case Finished(outcome=outcome):
                return outcome.message
            case placed if self.unreachable(run):
                return f"node {placed.place.node} is silent; the worker is not presumed dead"
            case _ if run.stop:
                return run.stop.reason
            case _:
                return ""

    def _why_waiting(self, wanted: Requirements, queued: Queued) -> str:
        # Kept until something changes: else a page of a thousand runs looks at every node a thousand times.
        if (wanted, queued) not in self._explained:
            reasons = [why_not_now(wanted, queued, each) or "free" for each in self.candidates()]
            self._explained[wanted, queued] = explain(reasons)
        return self._explained[wanted, queued]

    def _is_ready(self, node_id: str) -> bool:
        node = self.nodes.get(node_id)
        return node is not None and node.is_ready

    def hold_verdicts(self, now: Instant) -> None:
        """Lets no silence before this moment count against a node: the coordinator may have been away."""
        self._verdicts_from = max(self._verdicts_from, now.monotonic)

    # How it changes; only the functions `on_...` call these

    def move(self, run: Run, phase: Phase, now: Instant, event: str) -> Run:
        """Advances the run and has it saved."""
        return self.put(advance(run, phase, now), event)

    def put(self, run: Run, event: str) -> Run:
        """Takes the run as it is now and has it saved."""
        self._index(run)
        self._effects.append(SaveRun(run, event))
        return run

    def drop(self, run_id: str) -> None:
        """Forgets a finished run."""
        del self.runs[run_id]
        self._effects.append(DropRun(run_id))

    def put_node(self, node: Node) -> None:
        """Takes the node as it is now, without having it saved: liveness and load live in memory."""
        self._explained.clear()
        self.nodes[node.node_id] = node

    def save_node(self, node: Node) -> None:
        """Takes the node as it is now and has it saved."""
        self.put_node(node)
        self._effects.append(SaveNode(node))

    def take_policy(self, policy: PlacementPolicy) -> None:
        """Places by another policy from now on."""
        self.policy = policy
        self._explained.clear()

    def bury(self, run_id: str, tombstone: Tombstone) -> None:
        """Leaves a tombstone: this run must never start."""
        self.tombstones[run_id] = tombstone
        self._effects.append(SaveTombstone(run_id, tombstone))

    def send(self, node_id: str, message: agent_pb2.SessionResponse) -> None:
        """Sends to the node if it is in session; otherwise its next Hello will bring the matter up again."""
        node = self.nodes.get(node_id)
        if node is not None and isinstance(node.liveness, Ready):
            self._effects.append(Send(node_id, node.liveness.session, message))

    def end_session(self, node: Node, reason: str) -> None:
        """Has the node's session closed, if it has one."""
        if isinstance(node.liveness, Ready):
            self._effects.append(EndSession(node.node_id, node.liveness.session, reason))

    def _index(self, run: Run) -> None:
        self._explained.clear()
        before = self.runs.get(run.run_id)
        if before is not None and before.place is not None:
            self._live_by_node.get(before.place.node, set()).discard(run.run_id)
        self.runs[run.run_id] = run
        if isinstance(run.phase, Queued):
            self._waiting.setdefault(run.run_id)
        else:
            self._waiting.pop(run.run_id, None)
        if run.is_live and run.place is not None:
            self._live_by_node.setdefault(run.place.node, set()).add(run.run_id)
        if not run.is_live:
            self.usage.pop(run.run_id, None)

    def check_invariants(self) -> None:
        """Raises AssertionError if the indices do not agree with the runs. For tests."""
        queued = {run.run_id for run in self.runs.values() if isinstance(run.phase, Queued)}
        assert queued == set(self._waiting), f"{queued} != {set(self._waiting)}"
        live = {run.run_id: run.place.node for run in self.runs.values() if run.is_live and run.place}
        indexed = {run_id: node for node, ids in self._live_by_node.items() for run_id in ids}
        assert live == indexed, f"{live} != {indexed}"
        assert sum(map(len, self._live_by_node.values())) == len(live), "a run is live on two nodes"
        assert set(self.usage) <= set(live), "usage of a run that is not live"
