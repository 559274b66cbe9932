"""The runs of the demo: submitted through Dagster, watched in both systems; some are meddled with."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dagster import DagsterEventType, DagsterRunStatus, EventLogEntry
from harness.dagster_site import DagsterSite
from harness.local_cluster import LocalCluster

from runyard.v1 import placement_pb2, run_pb2

from .plan import SPILLING, TERMINATED, VICTIM, Plan
from .progress import Progress, Standing

POLL = 0.2
"""Seconds between two looks."""

PATIENCE = 180.0
"""Seconds after which the demo gives up; it takes about 30 on two cores."""

WAITS_IN_DAGSTER = run_pb2.Run()
"""Stands for a run that Dagster has not launched yet."""


@dataclass(frozen=True)
class Death:
    """The worker that was killed, and how Dagster learnt of it."""

    run_id: str
    message: str
    milliseconds: float


class DemoRuns:
    """The runs on a deployment, and what is done to them.

    Attributes:
        wait: The ID of the run that had to wait for its second cluster, and what it was told meanwhile.
    """

    def __init__(self, cluster: LocalCluster, site: DagsterSite) -> None:
        self._cluster = cluster
        self._site = site
        self._plans: dict[str, Plan] = {}
        self._killed_at: dict[str, float] = {}
        self._terminated: set[str] = set()
        self.wait: tuple[str, placement_pb2.Explanation] | None = None

    def submit(self, plans: Sequence[Plan]) -> None:
        """Submits runs to Dagster's queue; its daemon launches them."""
        for plan in plans:
            run = self._site.create_run(
                plan.job, run_config=plan.run_config, tags=plan.tags, assets=plan.assets
            )
            self._plans[self._site.submit(run)] = plan

    def follow(self, progress: Progress) -> Sequence[Standing]:
        """Shows how the runs stand, and meddles with two of them, until all are over.

        Raises:
            TimeoutError: Some run is not over after `PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            standings = self._standings()
            progress.show(standings)
            if all(standing.is_over for standing in standings):
                return standings
            if time.monotonic() > deadline:
                raise TimeoutError(f"some runs are not over after {PATIENCE:g} s")
            self._explain_wait(standings)
            if any(standing.plan is SPILLING and standing.node for standing in standings):
                self._make_room(standings)
            time.sleep(POLL)

    def _standings(self) -> list[Standing]:
        known = self._cluster.runs()
        return [
            self._standing(run_id, plan, known.get(run_id, WAITS_IN_DAGSTER))
            for run_id, plan in self._plans.items()
        ]

    def _standing(self, run_id: str, plan: Plan, run: run_pb2.Run) -> Standing:
        return Standing(
            plan=plan,
            run_id=run_id,
            cluster=run.cluster,
            node=run.node,
            attempt=str(run.attempt) if run.node else "",
            phase=run_pb2.Phase.Name(run.phase).removeprefix("PHASE_") if run.phase else "",
            outcome=_outcome_in_words(run.outcome) if run.HasField("outcome") else "",
            status=self._site.status(run_id),
        )

    def _explain_wait(self, standings: Sequence[Standing]) -> None:
        """Asks once, while there is something to wait for."""
        for standing in standings:
            if standing.plan is SPILLING and standing.phase == "QUEUED" and self.wait is None:
                self.wait = standing.run_id, self._cluster.client.explain_run(standing.run_id)

    def _make_room(self, standings: Sequence[Standing]) -> None:
        """Ends the runs that would go on for ever, each in its way."""
        for standing in standings:
            run_id, plan = standing.run_id, standing.plan
            if standing.status != DagsterRunStatus.STARTED:
                continue
            if plan is VICTIM and run_id not in self._killed_at:
                self._killed_at[run_id] = time.time()
                os.kill(self._cluster.run(run_id).pid, signal.SIGKILL)
            if plan is TERMINATED and run_id not in self._terminated:
                self._terminated.add(run_id)
                self._site.instance.run_coordinator.cancel_run(run_id)

    def of(self, plan: Plan) -> str:
        """The ID of the run of a plan."""
        return next(run_id for run_id, each in self._plans.items() if each is plan)

    def deaths(self) -> list[Death]:
        """What Dagster learnt of the workers that were killed."""
        return [
            Death(run_id, failure.message, (failure.timestamp - killed_at) * 1000)
            for run_id, killed_at in self._killed_at.items()
            for failure in self._events(run_id, DagsterEventType.RUN_FAILURE)
        ]

    def seconds_to_start(self) -> dict[str, float]:
        """For each started run: from Dagster's call of the launcher to the first event of the run itself."""
        return {
            run_id: started.timestamp - launched.timestamp
            for run_id in self._plans
            for launched in self._events(run_id, DagsterEventType.RUN_STARTING)
            for started in self._events(run_id, DagsterEventType.RUN_START)
        }

    def _events(self, run_id: str, kind: DagsterEventType) -> Sequence[EventLogEntry]:
        return self._site.instance.all_logs(run_id, of_type=kind)


def _outcome_in_words(outcome: run_pb2.Outcome) -> str:
    kind = run_pb2.OutcomeKind.Name(outcome.kind).removeprefix("OUTCOME_KIND_")
    if outcome.HasField("signal"):
        return f"{kind} {signal.Signals(outcome.signal).name}"
    return f"{kind} exit {outcome.exit_code}" if outcome.exit_code else kind
