"""A machine with a disk, workers that outlive the agent, and the real core of the agent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulation.coordinator import SimulatedCoordinator
from simulation.kernel import Kernel
from simulation.network import Link, Weather

from runyard.agent.core.effects import Accept, Bury, Effect, Forget, Reject, Report, Start, StopWorker
from runyard.agent.core.model import (
    UNKNOWN_LAUNCH,
    Accepted,
    Assignment,
    AttemptKey,
    AttemptPhase,
    Finished,
    HeldAttempt,
    LaunchIdentity,
    Outcome,
    OutcomeKind,
    Running,
    Starting,
)
from runyard.agent.core.reconcile import AttemptTable
from runyard.agent.session.conversions import rejection_of, status_of
from runyard.agent.spec_record.identities import identity_of
from runyard.v1 import agent_pb2, placement_pb2


@dataclass
class Directory:
    """The run directory of one attempt: survives the agent, the shim and the machine's reboot."""

    identity: LaunchIdentity
    stop_after: float | None = None
    grace: float = 5.0
    began_boot: int | None = None
    began_at: float = 0.0
    pid: int | None = None
    stop: bool = False
    exit: Outcome | None = None
    acknowledged: bool = False
    witnessed: bool = True
    """Somebody lives who will see the worker's exit: its shim, or the fork server above it."""


class Machine:
    """Disk and processes of a node. Knows nothing of the agent but whom to tell of a change."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.name = name
        self.boot = 1
        self.contact = 0.0
        """When the agent sent what the coordinator last acknowledged: a file, so it outlives the agent."""
        self.directories: dict[AttemptKey, Directory] = {}
        self.live: dict[AttemptKey, int] = {}
        self.starts: list[AttemptKey] = []
        self.start_failure_rate = 0.0
        self.tell: Callable[[AttemptKey, AttemptPhase], None] = lambda key, phase: None

    def start(self, key: AttemptKey) -> None:
        """What the fork server and the shim do: begin once, unless a stop was there first."""
        boot = self.boot
        self.kernel.soon(lambda: self._begin(key, boot), longest=2.0)

    def _begin(self, key: AttemptKey, boot: int) -> None:
        directory = self.directories[key]
        if boot != self.boot or directory.began_boot is not None or directory.exit is not None:
            return
        if directory.stop:
            self._end(key, Outcome(OutcomeKind.STOPPED, "stopped before it started"))
            return
        if self.kernel.chance(self.start_failure_rate):
            self._end(key, Outcome(OutcomeKind.START_FAILED, "cannot fork"))
            return
        directory.began_boot = boot
        directory.began_at = self.kernel.now
        directory.pid = len(self.starts) + 1000
        self.live[key] = directory.pid
        self.starts.append(key)
        self.kernel.note(self.name, f"worker of {key} begins")
        self.tell(key, Running(directory.pid))
        succeeded = Outcome(OutcomeKind.SUCCEEDED, "exited 0", exit_code=0)
        self.kernel.after(
            self.kernel.rng.choice([0.1, 5.0, 60.0, 300.0]), lambda: self._exit(key, boot, succeeded)
        )
        self._watch_contact(key, boot)

    def _watch_contact(self, key: AttemptKey, boot: int) -> None:
        """What the shim does for a run that is not to live without contact."""
        directory = self.directories[key]
        if boot != self.boot or key not in self.live or directory.stop_after is None:
            return
        deadline = max(self.contact, directory.began_at) + directory.stop_after
        if self.kernel.now > deadline:
            self.kernel.note(self.name, f"{key} is without contact, and is stopped")
            self.stop(key, OutcomeKind.TIMED_OUT)
        else:
            self.kernel.after(2.0, lambda: self._watch_contact(key, boot))

    def kill_witnesses(self) -> None:
        """Kills all shims and the fork server: the workers go on, and nobody will see how they end."""
        self.kernel.note(self.name, "shims and fork server are killed")
        for key in self.live:
            self.directories[key].witnessed = False

    def stop(self, key: AttemptKey, kind: OutcomeKind = OutcomeKind.STOPPED) -> None:
        """Leaves the stop request; a live worker ends within its grace."""
        directory = self.directories[key]
        directory.stop = True
        if directory.began_boot is None:
            self.start(key)  # a shim that finds the request and never starts the worker
        if key in self.live:
            stopped = Outcome(kind, "stopped")
            boot = self.boot
            self.kernel.soon(lambda: self._exit(key, boot, stopped), longest=directory.grace)

    def kill_one(self) -> None:
        """Kills a worker, as the kernel does when memory is short."""
        if self.live:
            key = self.kernel.rng.choice(sorted(self.live))
            self._exit(key, self.boot, Outcome(OutcomeKind.FAILED, "killed by signal 9", signal=9))

    def reboot(self) -> None:
        """All processes are gone, the disk is not."""
        self.kernel.note(self.name, "reboots")
        self.boot += 1
        self.live.clear()
        for directory in self.directories.values():
            # A mark that was not yet synced is lost with the power; the end is then told once more.
            directory.acknowledged = directory.acknowledged and self.kernel.chance(0.5)

    def _exit(self, key: AttemptKey, boot: int, outcome: Outcome) -> None:
        if boot == self.boot and self.live.pop(key, None) is not None:
            self._end(key, outcome)

    def _end(self, key: AttemptKey, outcome: Outcome) -> None:
        if not self.directories[key].witnessed:
            outcome = Outcome(OutcomeKind.EXIT_UNKNOWN, "nobody saw it")
        self.directories[key].exit = outcome
        self.kernel.note(self.name, f"worker of {key} is over: {outcome.kind.value}")
        self.tell(key, Finished(outcome))

    def held(self, key: AttemptKey) -> HeldAttempt:
        """What a directory says of its attempt."""
        directory = self.directories[key]
        phase: AttemptPhase
        if directory.exit is not None:
            phase = Finished(directory.exit)
        elif directory.began_boot is None:
            phase = Accepted()
        elif directory.began_boot != self.boot:
            directory.exit = Outcome(OutcomeKind.NODE_LOST, "the node rebooted")
            phase = Finished(directory.exit)
        else:
            phase = Running(directory.pid) if directory.pid else Starting()
        return HeldAttempt(key, directory.identity, phase)


class SimulatedAgent:
    """The agent's runtime: one session after the other, effects carried out in order."""

    def __init__(
        self,
        kernel: Kernel,
        machine: Machine,
        cluster: str,
        coordinator: SimulatedCoordinator,
        weather: Weather,
    ) -> None:
        self.kernel = kernel
        self.machine = machine
        self.crash_rate = 0.0
        self.refusal_rate = 0.0
        self._cluster = cluster
        self._coordinator = coordinator
        self._weather = weather
        self._life = 0
        self._connection = 0
        self._link: Link[agent_pb2.SessionRequest] | None = None
        self._heard = 0.0
        self._sent: dict[int, float] = {}
        self._epoch = 0
        self._links: list[Link[Any]] = []
        self.start()

    def start(self) -> None:
        """Comes up with what the disk holds."""
        self._life += 1
        life = self._life
        self.attempts = AttemptTable()
        self.machine.tell = lambda key, phase: self._on_change(life, key, phase)
        found = [
            self.machine.held(key)
            for key, directory in self.machine.directories.items()
            if not directory.acknowledged
        ]
        self._carry_out(self.attempts.on_recovered(found))
        self._dial(life)

    def crash(self, away: float) -> None:
        """Dies at once, without its workers, and comes back later."""
        self.kernel.note(self.machine.name, "agent crashes")
        self._life += 1
        life = self._life
        self._hang_up()
        self.machine.tell = lambda key, phase: None
        self.kernel.after(away, lambda: self.start() if life == self._life else None)

    # The session

    def _dial(self, life: int) -> None:
        if life != self._life:
            return
        coordinator = self._coordinator
        if not coordinator.up or self.kernel.chance(self._weather.loss):
            self.kernel.after(self.kernel.rng.uniform(0.5, 5.0), lambda: self._dial(life))
            return
        self._connection += 1
        connection = self._connection
        self._sent = {0: self.kernel.now}
        to_agent = Link[agent_pb2.SessionResponse](
            self.kernel, self._weather, lambda message: self._hear(connection, message)
        )
        hello = agent_pb2.Hello(
            node_id=self.machine.name,
            cluster=self._cluster,
            installation_id=self.machine.name,
            instance_id=f"{self.machine.name}-{life}",
            boot_id=f"{self.machine.name}-{self.machine.boot}",
            protocol_min=1,
            protocol_max=1,
            offer=placement_pb2.Offer(drivers=["process"], resources={"slots": 2}),
            last_epoch=self._epoch,
            attempts=[status_of(held) for held in self.attempts.all()],
        )
        session = coordinator.connect(hello, to_agent.send, lambda: self._broken(connection))
        if session is None:
            self.kernel.after(5.0, lambda: self._dial(life))
            return
        self._session = session
        self._heard = self.kernel.now
        self._link = Link(
            self.kernel,
            self._weather,
            lambda request: coordinator.hear(self.machine.name, session, request),
        )
        self._links = [to_agent, self._link]
        self._beat(connection, 1)

    def partition(self, directions: tuple[int, ...]) -> None:
        """Cuts directions of the present connection (0: to the agent, 1: from it); nobody is told."""
        self.kernel.note(self.machine.name, f"is cut off {directions}")
        for direction in directions:
            if direction < len(self._links):
                self._links[direction].cut = True

    def _beat(self, connection: int, sequence: int) -> None:
        if connection != self._connection or self._link is None:
            return
        if self.kernel.now - self._heard > 15.0 or self.kernel.chance(self._weather.breaks):
            self._broken(connection)
            return
        beat = agent_pb2.Heartbeat(
            sequence=sequence, attempts=[status_of(held) for held in self.attempts.all()]
        )
        self._sent[sequence] = self.kernel.now
        self._link.send(agent_pb2.SessionRequest(heartbeat=beat))
        self.kernel.after(self.kernel.rng.uniform(4.0, 5.0), lambda: self._beat(connection, sequence + 1))

    def _broken(self, connection: int) -> None:
        if connection == self._connection and self._link is not None:
            self._hang_up()
            life = self._life
            self.kernel.after(self.kernel.rng.uniform(0.1, 5.0), lambda: self._dial(life))

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link = None
            self._connection += 1
            # The other end notices sooner or later, perhaps after the next session has begun.
            node_id, session = self.machine.name, self._session
            self.kernel.soon(lambda: self._coordinator.disconnect(node_id, session), longest=10.0)

    def _hear(self, connection: int, message: agent_pb2.SessionResponse) -> None:
        if connection != self._connection or self._link is None:
            return
        match message.WhichOneof("message"):
            case "welcome":
                self._epoch = message.welcome.node_epoch
                self._acknowledged(0)
            case "heartbeat_ack":
                self._acknowledged(message.heartbeat_ack.sequence)
            case "assign":
                assign = message.assign
                key = AttemptKey(assign.run_id, assign.attempt)
                within = assign.start_within.ToNanoseconds() / 1e9
                start_by = self._sent[assign.after_heartbeat] + within
                if self.kernel.now <= start_by:
                    assignment = Assignment(key, identity_of(assign.spec), assign.spec, start_by)
                    self._carry_out(self.attempts.on_assign(assignment))
            case "stop":
                key = AttemptKey(message.stop.run_id, message.stop.attempt)
                self._carry_out(self.attempts.on_stop(key, 30.0, message.stop.reason))
            case "report_ack":
                key = AttemptKey(message.report_ack.run_id, message.report_ack.attempt)
                self._carry_out(self.attempts.on_acknowledged(key))
            case _:
                pass

    def _acknowledged(self, sequence: int) -> None:
        sent = self._sent[sequence]
        self._heard = max(self._heard, sent)
        self.machine.contact = max(self.machine.contact, sent)

    def _on_change(self, life: int, key: AttemptKey, phase: AttemptPhase) -> None:
        if life == self._life:
            self._carry_out(self.attempts.on_change(key, phase))

    # Effects

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            life = self._life
            if self.kernel.chance(self.crash_rate):
                self.crash(self.kernel.rng.choice([0.5, 20.0]))
                return
            self._carry_out(self._do(effect))
            if life != self._life:
                return

    def _do(self, effect: Effect) -> list[Effect]:
        disk = self.machine.directories
        match effect:
            case Accept(Assignment(key=key)) | Bury(key=key) if key in disk:
                return self.attempts.on_found(self.machine.held(key))
            case Accept(Assignment(key=key, identity=identity, spec=spec)):
                if self.kernel.chance(self.refusal_rate):
                    return self.attempts.on_not_accepted(key, "no space left on device")
                has_policy = spec.policies.HasField("stop_after")
                stop_after = spec.policies.stop_after.ToNanoseconds() / 1e9 if has_policy else None
                disk[key] = Directory(identity, stop_after)
                return self.attempts.on_accepted(key, identity)
            case Bury(key=key, reason=reason):
                disk[key] = Directory(UNKNOWN_LAUNCH, exit=Outcome(OutcomeKind.STOPPED, reason))
                return self.attempts.on_found(self.machine.held(key))
            case Start(key=key):
                self.machine.start(key)
            case StopWorker(key=key):
                self.machine.stop(key)
            case Forget(key=key):
                disk[key].acknowledged = True
            case Report(attempt=held) if self._link is not None:
                report = agent_pb2.AttemptReport(status=status_of(held))
                self._link.send(agent_pb2.SessionRequest(report=report))
            case Reject() if self._link is not None:
                report = agent_pb2.AttemptReport(rejection=rejection_of(effect))
                self._link.send(agent_pb2.SessionRequest(report=report))
            case _:
                pass
        return []
