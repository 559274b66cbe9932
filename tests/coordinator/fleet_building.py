"""A fleet under test: the real core, a clock that the test turns, and a record of what the core asked for."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from simulation.coordinator import Disk

from runyard.coordinator.core.effects import (
    DropRun,
    Effect,
    EndSession,
    SaveNode,
    SaveRun,
    SaveTombstone,
    Send,
)
from runyard.coordinator.core.events.on_launch import on_launch, on_reports_settled, on_terminate, unsettled
from runyard.coordinator.core.events.on_session import (
    on_disconnect,
    on_heartbeat,
    on_hello,
    on_rejection,
    on_status,
)
from runyard.coordinator.core.events.on_tick import Retention, forget_old, on_tick
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.core.model import (
    Instant,
    Launch,
    Node,
    Phase,
    Run,
    Tombstone,
)
from runyard.coordinator.core.requirements.requirements import (
    CompiledRequirements,
    RequirementLayer,
    StopAfter,
    TimeLimits,
)
from runyard.coordinator.core.scheduling.config import DEFAULT_CONFIG, SchedulingConfig
from runyard.coordinator.grpc.messages.agent_reports import attempt_status_of, heartbeat_of, hello_of
from runyard.v1 import agent_pb2, fleet_pb2, placement_pb2, run_pb2

T = TypeVar("T")
E = TypeVar("E", SaveRun, DropRun, SaveNode, SaveTombstone, Send, EndSession)

RUN = "run-1"
"""The run of tests that need only one."""

NODE = "node-a"
"""The node of tests that need only one."""

WALL = 1_700_000_000.0
"""The wall clock, in seconds since the epoch, when the monotonic one shows `START`."""

START = 1_000.0


LONGEST_STEP = 4.0
"""Seconds between two ticks at most: less than what counts as a freeze of the coordinator."""


def make_launch(
    run_id: str = RUN,
    resume_number: int = 0,
    *,
    requirements: CompiledRequirements | None = None,
    grace: float = 30.0,
    max_queue_time: float | None = None,
    start_timeout: float | None = None,
    stop_after: float | None = None,
    content: str = "",
    deployment: str = "shop",
    location: str = "shop.py",
    priority: int = 0,
) -> Launch:
    """A launch. Two with another `content` differ in their digest."""
    wanted = requirements or CompiledRequirements()
    layer = RequirementLayer(
        source="deployment",
        cluster=wanted.cluster or None,
        node=wanted.node or None,
        labels=wanted.labels,
        driver=wanted.driver,
        resources=wanted.resources,
        tolerations=wanted.tolerations,
        preferences=wanted.preferences,
        grace=grace,
        max_queue_time=max_queue_time,
        start_timeout=start_timeout,
        on_disconnect=StopAfter(stop_after) if stop_after is not None else None,
    )
    return Launch(
        run_id=run_id,
        resume_number=resume_number,
        deployment=deployment,
        job="orders",
        location=location,
        layers=(layer,),
        priority=priority,
        share=location,
        requirements=wanted,
        time_limits=TimeLimits(grace, max_queue_time, start_timeout, stop_after),
        digest=f"digest of {run_id} {resume_number} {content}",
        spec=run_pb2.LaunchSpec(
            run_id=run_id,
            resume_number=resume_number,
            worker_args="a secret",
            environment={"TOKEN": "a secret"},
            job_snapshot_id="snapshot-1",
            signed=run_pb2.SignedLaunch(payload=b"a secret"),
        ),
    )


def make_hello(
    node_id: str = NODE,
    *,
    cluster: str = "default",
    slots: int = 2,
    resources: dict[str, int] | None = None,
    labels: dict[str, str] | None = None,
    taints: Iterable[str] = (),
    drivers: Iterable[str] = ("process",),
    installation: str = "",
    boot_id: str = "boot-1",
    attempts: Iterable[agent_pb2.AttemptStatus] = (),
    protocol: tuple[int, int] = (1, 1),
) -> agent_pb2.Hello:
    """The Hello of an agent; by default each node has an installation of its own."""
    return agent_pb2.Hello(
        node_id=node_id,
        cluster=cluster,
        installation_id=installation or f"installation of {node_id}",
        instance_id="instance-1",
        boot_id=boot_id,
        protocol_min=protocol[0],
        protocol_max=protocol[1],
        offer=placement_pb2.Offer(
            labels=labels or {},
            drivers=drivers,
            taints=taints,
            resources={"slots": slots, **(resources or {})},
        ),
        facts=fleet_pb2.NodeFacts(hostname=f"{node_id}.example"),
        attempts=list(attempts),
    )


def status(
    phase: run_pb2.Phase.ValueType,
    run_id: str = RUN,
    attempt: int = 0,
    *,
    pid: int = 0,
    resume_number: int = 0,
    usage: run_pb2.WorkerUsage | None = None,
) -> agent_pb2.AttemptStatus:
    """What an agent says of a live attempt."""
    return agent_pb2.AttemptStatus(
        run_id=run_id,
        attempt=attempt,
        phase=phase,
        pid=pid,
        resume_number=resume_number,
        deployment="shop",
        job="orders",
        location="shop.py",
        usage=usage,
    )


def starting(run_id: str = RUN, attempt: int = 0, progress: str = "") -> agent_pb2.AttemptStatus:
    """The agent has the attempt on its disk, and may tell what it is waiting for."""
    told = status(run_pb2.PHASE_STARTING, run_id, attempt)
    told.progress = progress
    return told


def running(run_id: str = RUN, attempt: int = 0, pid: int = 41) -> agent_pb2.AttemptStatus:
    """The worker runs."""
    return status(run_pb2.PHASE_RUNNING, run_id, attempt, pid=pid)


def stopping(run_id: str = RUN, attempt: int = 0, pid: int = 0) -> agent_pb2.AttemptStatus:
    """The agent ends the worker."""
    return status(run_pb2.PHASE_STOPPING, run_id, attempt, pid=pid)


def finished(
    run_id: str = RUN,
    attempt: int = 0,
    kind: run_pb2.OutcomeKind.ValueType = run_pb2.OUTCOME_KIND_SUCCEEDED,
    *,
    pid: int = 0,
    message: str = "exited with code 0",
) -> agent_pb2.AttemptStatus:
    """The worker is over."""
    told = status(run_pb2.PHASE_FINISHED, run_id, attempt, pid=pid)
    told.outcome.CopyFrom(run_pb2.Outcome(kind=kind, message=message))
    return told


def as_assigned(spec: run_pb2.LaunchSpec) -> run_pb2.LaunchSpec:
    """What a node gets of a spec that asks for nothing in particular."""
    resolved = run_pb2.LaunchSpec()
    resolved.CopyFrom(spec)
    resolved.requirements.driver = "process"
    resolved.requirements.resources["slots"] = 1
    resolved.policies.grace.FromSeconds(30)
    return resolved


def warm_server(
    *locations: str,
    name: str = "server-1",
    state: fleet_pb2.WarmServerState.ValueType = fleet_pb2.WARM_SERVER_STATE_READY,
) -> fleet_pb2.WarmServer:
    """A warm server for the runs of these code locations."""
    return fleet_pb2.WarmServer(name=name, state=state, code_locations=locations)


class Recorder:
    """What the core asked for and no test has looked at yet."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def record(self, effects: list[Effect]) -> None:
        """Adds the effects of a step."""
        self._effects.extend(effects)

    def clear(self) -> None:
        """Forgets what was asked for while the stage was set."""
        self._effects.clear()

    def saved(self, run_id: str = RUN) -> list[Phase]:
        """Takes the phases in which the run is to be saved, in order."""
        return [effect.run.phase for effect in self._take(SaveRun) if effect.run.run_id == run_id]

    def history(self, run_id: str = RUN) -> list[str]:
        """Takes the lines that are to be written into the run's history."""
        return [effect.event for effect in self._take(SaveRun) if effect.run.run_id == run_id]

    def saved_node(self, node_id: str = NODE) -> Node:
        """Takes the one node that is to be saved."""
        (effect,) = self._take(SaveNode)
        assert effect.node.node_id == node_id
        return effect.node

    def buried(self, run_id: str = RUN) -> Tombstone:
        """Takes the one tombstone that is to be saved."""
        (effect,) = self._take(SaveTombstone)
        assert effect.run_id == run_id
        return effect.tombstone

    def dropped(self) -> list[str]:
        """Takes the runs that are to be deleted."""
        return [effect.run_id for effect in self._take(DropRun)]

    def ended_sessions(self) -> list[tuple[str, int]]:
        """Takes the sessions that are to be closed, each with its node."""
        return [(effect.node_id, effect.session) for effect in self._take(EndSession)]

    def sent(self, node_id: str = NODE) -> list[str]:
        """Takes the messages to a node, each by its name in the protocol."""
        return [name for name, _ in self.messages(node_id)]

    def messages(self, node_id: str = NODE) -> list[tuple[str, agent_pb2.SessionResponse]]:
        """Takes the messages to a node, with their names."""
        mine = [effect for effect in self._effects if isinstance(effect, Send) and effect.node_id == node_id]
        self._effects = [effect for effect in self._effects if effect not in mine]
        return [(effect.message.WhichOneof("message") or "", effect.message) for effect in mine]

    def everything(self) -> list[Effect]:
        """Takes everything as it is, in order."""
        effects, self._effects = self._effects, []
        return effects

    def order(self) -> list[str]:
        """Takes everything, named, in the order in which it is to be carried out."""
        names = [_name(effect) for effect in self._effects]
        self.clear()
        return names

    def assert_nothing_else(self) -> None:
        """Raises AssertionError if the core asked for more than the test has looked at."""
        assert not self._effects, f"unexpected: {[_name(effect) for effect in self._effects]}"

    def _take(self, kind: type[E]) -> list[E]:
        taken = [effect for effect in self._effects if isinstance(effect, kind)]
        self._effects = [effect for effect in self._effects if not isinstance(effect, kind)]
        return taken


def _name(effect: Effect) -> str:
    match effect:
        case SaveRun(run=run):
            return f"save {run.run_id} {type(run.phase).__name__.lower()}"
        case Send(node_id=node_id, message=message):
            return f"send {node_id} {message.WhichOneof('message')}"
        case _:
            return type(effect).__name__


class FleetTrial:
    """A fleet with its clock. Every step checks the invariants, and puts on disk what is to be saved."""

    def __init__(
        self, leases: LeaseSettings | None = None, config: SchedulingConfig = DEFAULT_CONFIG
    ) -> None:
        self.clock = START
        self.disk = Disk()
        self.asked = Recorder()
        self._leases = leases or LeaseSettings()
        self._sessions = 0
        self.fleet = Fleet(self._leases, self.now, config)

    @property
    def now(self) -> Instant:
        return Instant(self.clock, WALL + self.clock - START)

    def step(self, decision: Callable[[Fleet, Instant], T]) -> T:
        """Lets the core decide; what it refuses must leave no trace."""
        try:
            answer = decision(self.fleet, self.now)
        except Exception:
            assert not self.fleet.take_effects(), "a refusal changed something"
            raise
        finally:
            self.fleet.check_invariants()
        effects = self.fleet.take_effects()
        self.disk.write(effects)
        self.asked.record(effects)
        return answer

    def restart(self) -> None:
        """Ends the coordinator and starts another with what is on disk."""
        self.fleet = Fleet(self._leases, self.now, self.fleet.config)
        runs = [replace(run, queued_since=self.clock, since=self.clock) for run in self.disk.runs.values()]
        self.fleet.restore(runs, self.disk.nodes.values(), self.disk.tombstones)
        self.fleet.check_invariants()

    # Clients

    def launch(self, launch: Launch | None = None) -> Run:
        """LaunchRun."""
        return self.step(lambda fleet, at: on_launch(fleet, at, launch or make_launch()))

    def terminate(self, run_id: str = RUN, reason: str = "a user stopped it") -> bool:
        """TerminateRun."""
        return self.step(lambda fleet, at: on_terminate(fleet, at, run_id, reason))

    def settle(self, *keys: tuple[str, int]) -> None:
        """The reporter acknowledges outcomes."""
        self.step(lambda fleet, _: on_reports_settled(fleet, keys))

    def unsettled(self, deployment: str = "shop") -> list[str]:
        """The IDs of the runs that a reporter still has to settle."""
        return [run.run_id for run in unsettled(self.fleet, deployment)]

    # Agents

    def join(self, hello: agent_pb2.Hello | None = None) -> int:
        """An agent says Hello. Returns the number of its session."""
        self._sessions += 1
        session = self._sessions
        self.step(lambda fleet, at: on_hello(fleet, at, session, hello_of(hello or make_hello())))
        return session

    def leave(self, session: int, node_id: str = NODE) -> None:
        """The session breaks."""
        self.step(lambda fleet, _: on_disconnect(fleet, node_id, session))

    def beat(
        self,
        session: int,
        *attempts: agent_pb2.AttemptStatus,
        node_id: str = NODE,
        pressures: Iterable[fleet_pb2.Pressure] = (),
    ) -> None:
        """The agent sends a heartbeat with these attempts."""
        beat = agent_pb2.Heartbeat(sequence=7, attempts=attempts, pressures=pressures)
        self.step(lambda fleet, at: on_heartbeat(fleet, at, node_id, session, heartbeat_of(beat)))

    def warm_up(self, session: int, *servers: fleet_pb2.WarmServer, node_id: str = NODE) -> None:
        """The agent sends a heartbeat with these warm servers, and without attempts."""
        beat = agent_pb2.Heartbeat(sequence=7, warm_servers=servers)
        self.step(lambda fleet, at: on_heartbeat(fleet, at, node_id, session, heartbeat_of(beat)))

    def report(self, session: int, told: agent_pb2.AttemptStatus, node_id: str = NODE) -> None:
        """The agent tells of one attempt."""
        self.step(lambda fleet, at: on_status(fleet, at, node_id, session, attempt_status_of(told)))

    def reject(
        self,
        session: int,
        run_id: str = RUN,
        attempt: int = 0,
        *,
        node_id: str = NODE,
        reason: str = "no room",
        cause: str = "",
    ) -> None:
        """The agent refuses an assignment."""
        told = agent_pb2.Rejection(run_id=run_id, attempt=attempt, reason=reason, cause=cause)
        self.step(lambda fleet, at: on_rejection(fleet, at, node_id, session, told))

    # Time

    def tick(self, after: float = 0.0) -> None:
        """Time passes, and the coordinator looks at its deadlines all the while."""
        while after > LONGEST_STEP:
            self.clock += LONGEST_STEP
            after -= LONGEST_STEP
            self.step(on_tick)
        self.clock += after
        self.step(on_tick)

    def freeze(self, seconds: float) -> None:
        """Time passes, and the coordinator does not look."""
        self.clock += seconds

    def forget_old(self, retention: Retention, after: float = 0.0) -> None:
        """Time passes, and the coordinator tidies up."""
        self.clock += after
        self.step(lambda fleet, at: forget_old(fleet, at, retention))

    # What became of it

    def run(self, run_id: str = RUN) -> Run:
        """The run as it is now."""
        return self.fleet.runs[run_id]

    def phase(self, run_id: str = RUN) -> str:
        """The name of the run's phase."""
        return type(self.run(run_id).phase).__name__.lower()

    def node_of(self, run_id: str = RUN) -> str:
        """Where the run's attempt is; empty if nowhere."""
        place = self.run(run_id).place
        return place.node if place else ""

    def outcome(self, run_id: str = RUN) -> run_pb2.Outcome:
        """How the run ended."""
        phase = self.run(run_id).phase
        outcome = getattr(phase, "outcome", None)
        assert isinstance(outcome, run_pb2.Outcome), f"not over: {phase}"
        return outcome
