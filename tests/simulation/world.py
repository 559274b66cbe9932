"""One coordinator, three agents, clients that launch and stop, and everything that goes wrong."""

import uuid

from simulation.coordinator import SimulatedCoordinator
from simulation.kernel import Kernel
from simulation.network import Weather
from simulation.node import Machine, SimulatedAgent

from runyard.coordinator.core.errors import FleetError
from runyard.coordinator.core.events.on_launch import on_launch, on_terminate
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Finished, Instant, Launch, Run
from runyard.coordinator.core.requirements.requirements import (
    CompiledRequirements,
    RequirementLayer,
    StopAfter,
    TimeLimits,
)
from runyard.coordinator.core.transitions import PRESUMED
from runyard.v1 import run_pb2

RUNS = 8
GRACE = 5.0
TROUBLE = 150.0
"""Virtual seconds of faults; afterwards the world heals and has to come to rest."""

RESUMABLE = frozenset(
    {
        run_pb2.OUTCOME_KIND_FAILED,
        run_pb2.OUTCOME_KIND_NODE_LOST,
        run_pb2.OUTCOME_KIND_EXIT_UNKNOWN,
        run_pb2.OUTCOME_KIND_TIMED_OUT,
    }
)

REST = 3_000.0
"""Virtual seconds in which every run must have ended after the faults."""


class World:
    """A whole Runyard under one seed."""

    def __init__(self, seed: int) -> None:
        self.kernel = Kernel(seed)
        self.weather = Weather.of(self.kernel)
        self.coordinator = SimulatedCoordinator(self.kernel)
        self.machines = [Machine(self.kernel, f"node-{index}") for index in range(3)]
        self.agents = [
            SimulatedAgent(self.kernel, machine, "cluster", self.coordinator, self.weather)
            for machine in self.machines
        ]
        self.acknowledged: dict[str, int] = {}
        self.stopped: set[str] = set()
        self.buried: set[str] = set()
        self._ended: dict[tuple[str, int], run_pb2.OutcomeKind.ValueType] = {}
        self._seen: dict[str, Run] = {}
        self._schedule_clients()
        self._schedule_faults()

    def play(self) -> None:
        """Lets the trouble pass, then demands that all came right.

        Raises:
            AssertionError: An invariant does not hold.
        """
        self.kernel.run(TROUBLE, self.check)
        self.heal()
        while self.kernel.now < TROUBLE + REST and not self.is_at_rest():
            self.kernel.run(self.kernel.now + 20.0, self.check)
        self.check_at_rest()

    def is_at_rest(self) -> bool:
        """True once there is nothing left to wait for."""
        return all(
            isinstance(run.phase, Finished) for run in self.coordinator.disk.runs.values()
        ) and not any(
            machine.live or agent.attempts.all()
            for machine, agent in zip(self.machines, self.agents, strict=True)
        )

    def heal(self) -> None:
        """Ends all faults."""
        self.kernel.note("world", "heals")
        self.weather.calm()
        self.coordinator.crash_rate = 0.0
        for agent in self.agents:
            agent.crash_rate = agent.refusal_rate = agent.machine.start_failure_rate = 0.0

    # What must hold

    def check(self) -> None:
        """At every step: one worker at most, none that counts as over, and nothing settled is unsettled."""
        live = [key for machine in self.machines for key in machine.live]
        assert len(live) == len({key.run_id for key in live}), f"two live workers: {sorted(live)}"
        for key in live:
            assert key.run_id not in self.buried, f"{key} is alive, and was stopped before it was launched"
            run = self.coordinator.disk.runs.get(key.run_id)
            if run is not None:
                assert key.attempt == run.attempt, f"{key} is alive beside attempt {run.attempt}"
                assert not isinstance(run.phase, Finished), f"{key} is alive and counts as over"
        for run_id, attempt in self.acknowledged.items():
            run = self.coordinator.disk.runs.get(run_id)
            assert run is not None, f"acknowledged run {run_id} was forgotten"
            assert run.attempt >= attempt, f"run {run_id} went back from attempt {attempt} to {run.attempt}"
        for run in self.coordinator.disk.runs.values():
            if self._seen.get(run.run_id) is not run:
                self._check_absorbing(run)
                self._seen[run.run_id] = run

    def _check_absorbing(self, run: Run) -> None:
        key = (run.run_id, run.attempt)
        before = self._ended.get(key)
        if isinstance(run.phase, Finished):
            after = run.phase.outcome.kind
            assert before in (None, after) or before in PRESUMED, f"{key} went from {before} to {after}"
            self._ended[key] = after
        else:
            assert before is None, f"{key} left its end for {run.phase}"

    def check_at_rest(self) -> None:
        """At the end: every run is over, for a reason, and no attempt was started twice."""
        starts = [key for machine in self.machines for key in machine.starts]
        assert len(starts) == len(set(starts)), f"an attempt was started twice: {starts}"
        begun = [
            (key.run_id, machine.directories[key].identity.resume_number)
            for machine in self.machines
            for key in machine.starts
        ]
        assert len(begun) == len(set(begun)), f"a launch had a second worker, unasked by Dagster: {begun}"
        assert not [key for machine in self.machines for key in machine.live], "a worker is still alive"
        for run_id in self.acknowledged:
            run = self.coordinator.disk.runs[run_id]
            assert isinstance(run.phase, Finished), f"{run_id} is still {run.phase}"
            kind = run.phase.outcome.kind
            if kind == run_pb2.OUTCOME_KIND_STOPPED:
                assert run_id in self.stopped, f"{run_id} was stopped by nobody"
            if kind == run_pb2.OUTCOME_KIND_SUCCEEDED:
                began = [key for key in starts if (key.run_id, key.attempt) == (run_id, run.attempt)]
                assert began, f"{run_id} succeeded without a worker"
        for agent in self.agents:
            assert not agent.attempts.all(), "an end was never acknowledged"

    # What happens

    def _schedule_clients(self) -> None:
        rng = self.kernel.rng
        self._resume_what_failed()
        for number in range(RUNS):
            launch = _launch(number, resume_number=0)
            at = rng.uniform(3.0, TROUBLE / 2)
            for _ in range(rng.choice([1, 1, 2])):
                self.kernel.after(at, lambda launch=launch: self._launch(launch))  # type: ignore[misc]
            if self.kernel.chance(0.4):
                # Often close to the launch: shortly before it, or while it is on its way.
                at = rng.choice([rng.uniform(1.0, TROUBLE), at + rng.uniform(-2.0, 5.0)])
                self.kernel.after(at, lambda run_id=launch.run_id: self._terminate(run_id))  # type: ignore[misc]

    def _launch(self, launch: Launch) -> None:
        """Launches and, until there is an answer, launches again."""
        answered: list[Run] = []

        def answer(run: Run) -> None:
            answered.append(run)
            self.acknowledged[run.run_id] = max(run.attempt, self.acknowledged.get(run.run_id, 0))

        def decision(fleet: Fleet, at: Instant) -> Run:
            return on_launch(fleet, at, launch)

        if self.coordinator.up:
            try:
                self.coordinator.decide(decision, answer)
            except FleetError as refusal:
                self.kernel.note("client", f"launch of {launch.run_id[:8]} refused: {refusal}")
        self.kernel.after(3.0, lambda: None if answered else self._launch(launch))

    def _terminate(self, run_id: str) -> None:
        self.stopped.add(run_id)

        def decision(fleet: Fleet, at: Instant) -> bool:
            known = run_id in fleet.runs
            on_terminate(fleet, at, run_id, "a user stopped it")
            return known

        def answer(known: bool) -> None:
            if not known:
                self.buried.add(run_id)

        if self.coordinator.up:
            self.coordinator.decide(decision, answer)

    def _resume_what_failed(self) -> None:
        """Does what Dagster's run monitoring does: a run whose worker is proven dead goes on with another."""
        for run in list(self.coordinator.disk.runs.values()):
            resume_number = run.launch.resume_number + 1
            if isinstance(run.phase, Finished) and run.phase.outcome.kind in RESUMABLE and resume_number <= 3:
                self._launch(_launch(uuid.UUID(run.run_id).int, resume_number))
        if self.kernel.now < TROUBLE:
            self.kernel.after(10.0, self._resume_what_failed)

    def _freeze(self, at: float, seconds: float) -> None:
        """Stops the coordinator's process for a while, as SIGSTOP does; the connections stay."""

        def set_frozen(frozen: bool) -> None:
            self.kernel.note("coordinator", "freezes" if frozen else "thaws")
            self.coordinator.frozen = frozen

        self.kernel.after(at, lambda: set_frozen(True))
        self.kernel.after(at + seconds, lambda: set_frozen(False))

    def _schedule_faults(self) -> None:
        rng = self.kernel.rng
        self.coordinator.crash_rate = rng.choice([0.0, 0.0, 0.02])
        for agent in self.agents:
            agent.crash_rate = rng.choice([0.0, 0.0, 0.05])
            agent.refusal_rate = rng.choice([0.0, 0.0, 0.5])
            agent.machine.start_failure_rate = rng.choice([0.0, 0.0, 0.5])
        for _ in range(rng.choice([0, 1, 3])):
            self.kernel.after(rng.uniform(1.0, TROUBLE), self.coordinator.crash)
        if self.kernel.chance(0.2):
            self._freeze(rng.uniform(1.0, TROUBLE / 2), rng.choice([10.0, 60.0]))
        for agent, machine in zip(self.agents, self.machines, strict=True):
            if self.kernel.chance(0.5):
                self.kernel.after(rng.uniform(1.0, TROUBLE), lambda agent=agent: agent.crash(2.0))  # type: ignore[misc]
            if self.kernel.chance(0.2):
                self.kernel.after(rng.uniform(1.0, TROUBLE), machine.kill_witnesses)
            if self.kernel.chance(0.2):
                for _ in range(5):
                    self.kernel.after(rng.uniform(1.0, TROUBLE), machine.kill_one)
            for _ in range(rng.choice([0, 0, 1, 2])):
                directions = rng.choice([(0,), (1,), (0, 1)])
                self.kernel.after(
                    rng.uniform(1.0, TROUBLE),
                    lambda agent=agent, directions=directions: agent.partition(directions),  # type: ignore[misc]
                )
            if self.kernel.chance(0.2):
                self.kernel.after(rng.uniform(1.0, TROUBLE), lambda pair=(agent, machine): _reboot(*pair))  # type: ignore[misc]


def _reboot(agent: SimulatedAgent, machine: Machine) -> None:
    machine.reboot()
    agent.crash(10.0)


def _launch(number: int, resume_number: int) -> Launch:
    """Every third run does not want to live without contact."""
    run_id = str(uuid.UUID(int=number))
    stop_after = 20.0 if number % 3 == 0 else None
    spec = run_pb2.LaunchSpec(run_id=run_id, resume_number=resume_number)
    if stop_after is not None:
        spec.policies.stop_after.FromSeconds(20)
    on_disconnect = StopAfter(stop_after) if stop_after is not None else None
    layer = RequirementLayer("deployment", grace=GRACE, on_disconnect=on_disconnect)
    return Launch(
        run_id=run_id,
        resume_number=resume_number,
        deployment="default",
        job="job",
        location="location",
        layers=(layer,),
        requirements=CompiledRequirements(),
        time_limits=TimeLimits(grace=GRACE, stop_after=stop_after),
        digest=f"digest-{number}-{resume_number}",
        spec=spec,
    )
