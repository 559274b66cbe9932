"""A fleet with a crowd before it: nodes of plain sizes, and runs that ask for slots and memory."""

from coordinator.fleet_building import FleetTrial, finished, make_hello, make_launch, running

from runyard.coordinator.core.events.on_config_change import on_config_change
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.model import Run
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.scheduling.config import SchedulingConfig

BEAT = 4.0
"""Seconds between two beats of a node, within every lease."""


class Crowd:
    """A fleet whose nodes beat for as long as time passes."""

    def __init__(self, config: SchedulingConfig | None = None) -> None:
        self.trial = FleetTrial(config=config or SchedulingConfig())
        self._sessions: dict[str, int] = {}
        self._numbers = 0

    def join(self, node_id: str, slots: int = 1, memory: int = 0, cluster: str = "default") -> None:
        """A node comes into session."""
        hello = make_hello(node_id, cluster=cluster, slots=slots, resources={"memory": memory})
        self._sessions[node_id] = self.trial.join(hello)

    def leave(self, node_id: str) -> None:
        """A node's session breaks."""
        self.trial.leave(self._sessions.pop(node_id), node_id)

    def launch(self, share: str = "shop", *, memory: int = 0, priority: int = 0, node: str = "") -> str:
        """Launches a run; gives its ID."""
        self._numbers += 1
        run_id = f"{share}-{self._numbers:04}"
        wanted = CompiledRequirements(node=node, resources=Resources.of({"slots": 1, "memory": memory}))
        self.trial.launch(make_launch(run_id, requirements=wanted, location=share, priority=priority))
        return run_id

    def launch_many(
        self, count: int, share: str = "shop", *, memory: int = 0, priority: int = 0
    ) -> list[str]:
        """Launches runs that are all alike."""
        return [self.launch(share, memory=memory, priority=priority) for _ in range(count)]

    def finish(self, run_id: str) -> list[str]:
        """Ends a run; gives the runs that got nodes by it."""
        run = self.trial.run(run_id)
        assert run.place is not None, f"{run_id} has no node"
        before = {run.run_id for run in self.live()}
        told = finished(run_id, run.attempt)
        self.trial.report(self._sessions[run.place.node], told, run.place.node)
        return [run.run_id for run in self.live() if run.run_id not in before]

    def wait(self, seconds: float) -> None:
        """Time passes, and all nodes beat."""
        while seconds > 0:
            for node_id, session in self._sessions.items():
                told = [running(run.run_id, run.attempt) for run in self.trial.fleet.live_on(node_id)]
                self.trial.beat(session, *told, node_id=node_id)
            self.trial.tick(min(BEAT, seconds))
            seconds -= BEAT

    def decide(self, config: SchedulingConfig) -> None:
        """The operator decides anew."""
        self.trial.step(lambda fleet, at: on_config_change(fleet, at, config))

    def live(self) -> list[Run]:
        """The runs that have a node, in the order in which they got it."""
        runs = [run for run in self.trial.fleet.runs.values() if run.is_live]
        return sorted(runs, key=lambda run: (run.times.assigned or 0.0, run.run_id))

    def waits(self, run_id: str) -> bool:
        """True if the run has no node yet."""
        return self.trial.phase(run_id) == "queued"

    def node_of(self, run_id: str) -> str:
        """Where the run is."""
        return self.trial.node_of(run_id)

    def news(self, run_id: str) -> str:
        """What people are told of the run."""
        return situation(self.trial.fleet, self.trial.run(run_id))

    def reserved(self) -> dict[str, str]:
        """The reserved nodes, with the runs that they are for."""
        reservations = self.trial.fleet.queue.reservations
        return {each.node_id: each.run_class.head.run_id for each in reservations}
