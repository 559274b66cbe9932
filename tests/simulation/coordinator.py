"""The real core of the coordinator, on a disk and sockets that fail."""

from collections.abc import Callable
from typing import TypeVar

from simulation.kernel import Kernel

from runyard.coordinator.core.effects import (
    DropRun,
    Effect,
    EndSession,
    SaveNode,
    SaveRun,
    SaveTombstone,
    Send,
)
from runyard.coordinator.core.errors import FleetError
from runyard.coordinator.core.events.on_session import (
    on_disconnect,
    on_heartbeat,
    on_hello,
    on_rejection,
    on_status,
)
from runyard.coordinator.core.events.on_tick import on_tick
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.core.model import Instant, Node, Run, Tombstone
from runyard.coordinator.grpc.messages.agent_reports import attempt_status_of, heartbeat_of, hello_of
from runyard.v1 import agent_pb2

T = TypeVar("T")


class Disk:
    """What survives a crash of the coordinator."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.nodes: dict[str, Node] = {}
        self.tombstones: dict[str, Tombstone] = {}

    def write(self, effects: list[Effect]) -> None:
        """Takes one transaction."""
        for effect in effects:
            match effect:
                case SaveRun(run=run):
                    self.runs[run.run_id] = run
                case DropRun(run_id=run_id):
                    del self.runs[run_id]
                case SaveNode(node=node):
                    self.nodes[node.node_id] = node
                case SaveTombstone(run_id=run_id, tombstone=tombstone):
                    self.tombstones[run_id] = tombstone
                case _:
                    pass


class SimulatedCoordinator:
    """Persists, sends, answers, in that order; a crash may fall before, between and after."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.disk = Disk()
        self.up = False
        self.crash_rate = 0.0
        self.frozen = False
        self._life = 0
        self._sessions = 0
        self._send: dict[int, Callable[[agent_pb2.SessionResponse], None]] = {}
        self._end: dict[int, Callable[[], None]] = {}
        self._batches: list[tuple[list[Effect], Callable[[], None]]] = []
        self._writing = False
        self.fleet: Fleet
        self.start()

    def start(self) -> None:
        """Comes up with what the disk holds."""
        self.up, self._life, self._writing = True, self._life + 1, False
        self._batches.clear()
        self.fleet = Fleet(LeaseSettings(), self._instant())
        self.fleet.restore(self.disk.runs.values(), self.disk.nodes.values(), self.disk.tombstones)
        self.kernel.note("coordinator", f"up with {len(self.disk.runs)} runs")
        self._tick(self._life)

    def crash(self) -> None:
        """Dies at once; comes back later."""
        if not self.up:
            return
        self.kernel.note("coordinator", "crashes")
        self.up = False
        self._life += 1
        for end in list(self._end.values()):
            self.kernel.soon(end)
        self._send.clear()
        self._end.clear()
        self.kernel.after(self.kernel.rng.choice([0.5, 5.0, 80.0]), self.start)

    def decide(self, decision: Callable[[Fleet, Instant], T], answer: Callable[[T], None]) -> None:
        """Decides; `answer` is called once everything is durable and sent.

        Raises:
            FleetError: What the core refused.
        """
        result = decision(self.fleet, self._instant())
        effects = self.fleet.take_effects()
        if effects:  # what a decision without any may have broken is still broken after the next
            self.fleet.check_invariants()
        self._batches.append((effects, lambda: answer(result)))
        self._write_later()

    # Sessions

    def connect(
        self,
        hello: agent_pb2.Hello,
        send: Callable[[agent_pb2.SessionResponse], None],
        end: Callable[[], None],
    ) -> int | None:
        """Opens a session; its number, or None if the agent was refused."""
        self._sessions += 1
        session = self._sessions
        self._send[session], self._end[session] = send, end
        try:
            self.decide(lambda fleet, at: on_hello(fleet, at, session, hello_of(hello)), lambda _: None)
        except FleetError as refusal:
            self.kernel.note("coordinator", f"refuses {hello.node_id}: {refusal}")
            del self._send[session], self._end[session]
            return None
        return session

    def hear(self, node_id: str, session: int, request: agent_pb2.SessionRequest) -> None:
        """Takes a message of a session."""
        if self.frozen:
            self.kernel.after(1.0, lambda: self.hear(node_id, session, request))
            return
        if not self.up or session not in self._send:
            return
        heard: Callable[[Fleet, Instant], None]
        if request.HasField("heartbeat"):

            def heard(fleet: Fleet, at: Instant) -> None:
                on_heartbeat(fleet, at, node_id, session, heartbeat_of(request.heartbeat))

        elif request.report.HasField("status"):

            def heard(fleet: Fleet, at: Instant) -> None:
                on_status(fleet, at, node_id, session, attempt_status_of(request.report.status))

        else:

            def heard(fleet: Fleet, at: Instant) -> None:
                on_rejection(fleet, at, node_id, session, request.report.rejection)

        self.decide(heard, lambda _: None)

    def disconnect(self, node_id: str, session: int) -> None:
        """Notices that a session broke."""
        if self.up and self._send.pop(session, None) is not None:
            self._end.pop(session)
            self.decide(lambda fleet, _: on_disconnect(fleet, node_id, session), lambda _: None)

    # Persist, send, answer

    def _write_later(self) -> None:
        if not self._writing:
            self._writing = True
            life = self._life
            self.kernel.soon(lambda: self._write(life))

    def _write(self, life: int) -> None:
        if life != self._life:
            return
        group, self._batches = self._batches, []
        self._writing = False
        effects = [effect for batch, _ in group for effect in batch]
        if self._crashes("before the commit"):
            return
        self.disk.write(effects)
        if self._crashes("after the commit"):
            return
        for effect in effects:
            match effect:
                case Send(session=session, message=message) if session in self._send:
                    self._send[session](message)
                    if self._crashes("between two messages"):
                        return
                case EndSession(session=session) if session in self._end:
                    self.kernel.soon(self._end.pop(session))
                    del self._send[session]
                case _:
                    pass
        for _, answer in group:
            answer()
            if self._crashes("between two answers"):
                return

    def _crashes(self, where: str) -> bool:
        if not self.kernel.chance(self.crash_rate):
            return False
        self.kernel.note("coordinator", f"crash point: {where}")
        self.crash()
        return True

    def _tick(self, life: int) -> None:
        if life == self._life:
            if not self.frozen:
                self.decide(on_tick, lambda _: None)
            self.kernel.after(2.0, lambda: self._tick(life))

    def _instant(self) -> Instant:
        # The wall clock is a stranger: it must not matter that it jumps.
        return Instant(monotonic=self.kernel.now, wall=self.kernel.rng.uniform(0, 2e9))
