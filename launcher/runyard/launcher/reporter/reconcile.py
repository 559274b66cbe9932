"""Stops workers that are still alive although Dagster has ended or canceled their run."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES, RunsFilter

from runyard.client import Client, RunyardError
from runyard.common.phases import UNFINISHED_PHASES
from runyard.v1 import run_pb2

logger = logging.getLogger(__name__)

_WITHOUT_WORKER: Final = frozenset({run_pb2.PHASE_QUEUED, run_pb2.PHASE_ASSIGNED})

# SQLite before 3.32 takes 999 variables in a statement: https://www.sqlite.org/limits.html
_RUNS_PER_QUERY: Final = 500


@dataclass(frozen=True)
class Stop:
    """A worker to stop, with the reason to show."""

    run_id: str
    reason: str


class OrphanGrace:
    """Tracks since when the run of a live worker has been over in Dagster.

    A worker needs a moment to exit after it has recorded the end of its run. One that never ran needs none.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def overdue(
        self,
        live: Iterable[run_pb2.Run],
        statuses: Mapping[str, DagsterRunStatus],
        now: float,
    ) -> list[Stop]:
        """List the workers to stop now.

        Args:
            live: The coordinator's unfinished runs. Those that it is already stopping are skipped.
            statuses: Dagster's status of each of them. One that is missing is left alone: it may have been
                deleted, or belong to another instance that uses the same deployment name.
            now: Monotonic time in seconds.
        """
        unstopped = [run for run in live if not run.stop_requested]
        ended = {run.run_id for run in unstopped if _has_ended(statuses.get(run.run_id))}
        self._since = {run_id: self._since.get(run_id, now) for run_id in ended}
        return [
            Stop(run.run_id, _reason(statuses[run.run_id]))
            for run in unstopped
            if statuses.get(run.run_id) == DagsterRunStatus.CANCELING
            or (run.run_id in ended and self._is_due(run, now))
        ]

    def _is_due(self, run: run_pb2.Run, now: float) -> bool:
        return run.phase in _WITHOUT_WORKER or now - self._since[run.run_id] >= self._seconds


class Reconciler:
    """Compares the unfinished runs of one deployment with Dagster, and stops workers of ended runs."""

    def __init__(
        self,
        client: Client,
        instance: DagsterInstance,
        deployment: str,
        orphan_grace: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            client: Client of the coordinator.
            instance: Dagster's storage.
            deployment: The deployment to compare.
            orphan_grace: Seconds that a worker may outlive its run.
            clock: Monotonic time in seconds.
        """
        self._client = client
        self._instance = instance
        self._deployment = deployment
        self._grace = OrphanGrace(orphan_grace)
        self._clock = clock
        self._unknown: set[str] = set()

    def run_once(self) -> None:
        """Compare once.

        Raises:
            RunyardError: The coordinator could not list its runs.
        """
        live = list(self._client.list_runs(phases=UNFINISHED_PHASES, deployment=self._deployment))
        statuses = self._statuses([run.run_id for run in live])
        self._warn_of_unknown({run.run_id for run in live} - statuses.keys())
        for stop in self._grace.overdue(live, statuses, self._clock()):
            self._stop(stop)

    def _statuses(self, run_ids: list[str]) -> dict[str, DagsterRunStatus]:
        return {
            run.run_id: run.status
            for start in range(0, len(run_ids), _RUNS_PER_QUERY)
            for run in self._instance.get_runs(RunsFilter(run_ids=run_ids[start : start + _RUNS_PER_QUERY]))
        }

    def _warn_of_unknown(self, run_ids: set[str]) -> None:
        if new := run_ids - self._unknown:
            logger.warning(
                "Live runs of deployment %s are not in this Dagster instance: %s. If they were deleted, stop "
                "them by `runyard run stop`. If another instance uses the same deployment name, give each "
                "its own `deployment` in dagster.yaml",
                self._deployment,
                ", ".join(sorted(new)),
            )
        self._unknown = run_ids

    def _stop(self, stop: Stop) -> None:
        logger.info("Stopping the worker of run %s: %s", stop.run_id, stop.reason)
        try:
            self._client.terminate_run(stop.run_id, reason=stop.reason)
        except RunyardError as error:
            logger.warning("Could not stop the worker of run %s, will try again: %s", stop.run_id, error)


def _has_ended(status: DagsterRunStatus | None) -> bool:
    return status in FINISHED_STATUSES


def _reason(status: DagsterRunStatus) -> str:
    if status == DagsterRunStatus.CANCELING:
        return "the run is being canceled in Dagster"
    return f"Dagster has the run as {status.value}"
