"""Agents that say anything at any time, clients that ask anything, and a coordinator that restarts."""

from contextlib import suppress

from coordinator.fleet_building import FleetTrial, make_hello, make_launch, status
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runyard.coordinator.core.effects import SaveRun, Send
from runyard.coordinator.core.errors import FleetError
from runyard.coordinator.core.model import Finished, Run
from runyard.coordinator.core.transitions import PRESUMED
from runyard.v1 import agent_pb2, run_pb2

NODES = ("node-a", "node-b")
RUNS = ("run-1", "run-2", "run-3")

nodes = st.sampled_from(NODES)
runs = st.sampled_from(RUNS)
attempts = st.integers(0, 3)
outcomes = st.sampled_from(run_pb2.OutcomeKind.values())


@st.composite
def statuses(draw: st.DrawFn) -> agent_pb2.AttemptStatus:
    """Anything that an agent may say of an attempt, true or not."""
    phase = draw(st.sampled_from(run_pb2.Phase.values()))
    told = status(phase, draw(runs), draw(attempts), pid=draw(st.sampled_from([0, 41])))
    if phase == run_pb2.PHASE_FINISHED:
        told.outcome.kind = draw(outcomes)
    return told


class FleetMachine(RuleBasedStateMachine):
    """What must hold of the account, however mad the world."""

    def __init__(self) -> None:
        super().__init__()
        self.trial = FleetTrial()
        self.sessions: dict[str, int] = {}
        self.ended: dict[tuple[str, int], run_pb2.OutcomeKind.ValueType] = {}
        self.assigned: dict[tuple[str, int], str] = {}
        self.latest: dict[str, int] = {}

    @initialize()
    def both_nodes_join(self) -> None:
        for node in NODES:
            self.sessions[node] = self.trial.join(make_hello(node))

    # Clients

    @rule(run_id=runs, resume_number=st.integers(0, 2), start_timeout=st.sampled_from([None, 30.0]))
    def launch(self, run_id: str, resume_number: int, start_timeout: float | None) -> None:
        launch = make_launch(run_id, resume_number, start_timeout=start_timeout, max_queue_time=200.0)
        with suppress(FleetError):
            self.trial.launch(launch)

    @rule(run_id=runs)
    def terminate(self, run_id: str) -> None:
        self.trial.terminate(run_id)

    @rule(run_id=runs, attempt=attempts)
    def settle(self, run_id: str, attempt: int) -> None:
        self.trial.settle((run_id, attempt))

    # Agents

    @rule(
        node=nodes,
        told=st.lists(statuses(), max_size=3),
        boot=st.sampled_from(["boot-1", "boot-2"]),
        installation=st.sampled_from(["", "another"]),
        slots=st.integers(0, 2),
    )
    def join(
        self, node: str, told: list[agent_pb2.AttemptStatus], boot: str, installation: str, slots: int
    ) -> None:
        hello = make_hello(node, boot_id=boot, attempts=told, installation=installation, slots=slots)
        with suppress(FleetError):
            self.sessions[node] = self.trial.join(hello)

    @rule(node=nodes)
    def leave(self, node: str) -> None:
        self.trial.leave(self.sessions.get(node, 0), node)

    @rule(node=nodes, told=statuses())
    def report(self, node: str, told: agent_pb2.AttemptStatus) -> None:
        self.trial.report(self.sessions.get(node, 0), told, node)

    @rule(node=nodes, told=st.lists(statuses(), max_size=3))
    def beat(self, node: str, told: list[agent_pb2.AttemptStatus]) -> None:
        self.trial.beat(self.sessions.get(node, 0), *told, node_id=node)

    @rule(node=nodes, run_id=runs, attempt=attempts)
    def reject(self, node: str, run_id: str, attempt: int) -> None:
        self.trial.reject(self.sessions.get(node, 0), run_id, attempt, node_id=node)

    @rule(run_id=runs, told=statuses())
    def report_what_is_live(self, run_id: str, told: agent_pb2.AttemptStatus) -> None:
        if (run := self.trial.fleet.runs.get(run_id)) and run.is_live and run.place:
            told.run_id, told.attempt = run_id, run.attempt
            self.report(run.place.node, told)

    @rule(run_id=runs)
    def reject_what_is_live(self, run_id: str) -> None:
        if (run := self.trial.fleet.runs.get(run_id)) and run.is_live and run.place:
            self.reject(run.place.node, run_id, run.attempt)

    # Time

    @rule(after=st.sampled_from([0.0, 3.0, 20.0, 100.0]))
    def tick(self, after: float) -> None:
        self.trial.tick(after)

    @rule()
    def restart(self) -> None:
        self.trial.restart()
        self.sessions.clear()

    # What must hold

    @invariant()
    def every_step_keeps_the_promises(self) -> None:
        for effect in self.trial.asked.everything():
            match effect:
                case SaveRun(run=run):
                    self._check_saved(run)
                case Send(node_id=node, message=message) if message.HasField("assign"):
                    self._check_assigned(node, message.assign)
                case Send(node_id=node, message=message) if message.HasField("report_ack"):
                    self._check_acknowledged(node, message.report_ack)
                case _:
                    pass

    @invariant()
    def memory_agrees_with_the_disk(self) -> None:
        def without_clocks(run: Run) -> tuple[object, ...]:
            return (run.launch, run.attempt, run.phase, run.times, run.stop, run.reported)

        memory = {run_id: without_clocks(run) for run_id, run in self.trial.fleet.runs.items()}
        disk = {run_id: without_clocks(run) for run_id, run in self.trial.disk.runs.items()}
        assert memory == disk

    def _check_saved(self, run: Run) -> None:
        assert run.attempt >= self.latest.get(run.run_id, 0), "an attempt number went back"
        self.latest[run.run_id] = run.attempt
        before = self.ended.get((run.run_id, run.attempt))
        if isinstance(run.phase, Finished):
            kind = run.phase.outcome.kind
            assert before is None or before == kind or before in PRESUMED, "a seen end was changed"
            self.ended[run.run_id, run.attempt] = kind
        else:
            assert before is None, "a run left its end"

    def _check_assigned(self, node: str, assign: agent_pb2.Assign) -> None:
        key = (assign.run_id, assign.attempt)
        assert self.assigned.setdefault(key, node) == node, "one attempt was given to two nodes"
        assert assign.attempt == self.latest[assign.run_id], "an attempt was assigned before it was saved"

    def _check_acknowledged(self, node: str, ack: agent_pb2.ReportAck) -> None:
        run = self.trial.disk.runs[ack.run_id]
        if run.attempt == ack.attempt and run.place is not None and run.place.node == node:
            assert isinstance(run.phase, Finished), "an end was acknowledged that is not on disk"


FleetMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestFleetMachine = FleetMachine.TestCase
