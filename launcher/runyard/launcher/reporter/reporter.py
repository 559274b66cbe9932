"""Writes the outcomes of workers into Dagster at once, instead of after minutes of run monitoring.

The coordinator serves one reporter per deployment at a time and repeats each report until it is acknowledged.
The run is read again before anything is written, so a report that arrives twice is written once.
"""

import logging
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from dagster import DagsterInstance
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from runyard.client import Client, ReportFollower, RunNotFound, attempt_key
from runyard.common.backoff import Backoff, jittered
from runyard.launcher.reporter.dagster_writes import (
    write_announcement,
    write_cancellation,
    write_failure,
)
from runyard.launcher.reporter.reconcile import Reconciler
from runyard.launcher.reporter.report_queue import PendingReport, ReportQueue
from runyard.launcher.reporter.settlement import (
    Announce,
    Cancel,
    DagsterState,
    Fail,
    Nothing,
    Settlement,
    decide,
)
from runyard.v1 import run_pb2

logger = logging.getLogger(__name__)

_ANNOUNCED_KEPT: Final = 10_000


@dataclass(frozen=True)
class Timing:
    """Intervals of the reporter, in seconds."""

    # Between a worker's exit and the settlement: its last event may still be on its way to a slow database.
    drain: float = 0.1
    reconcile_every: float = 15.0
    # How long a worker may outlive its run.
    orphan_grace: float = 30.0
    # Longest pause before a broken stream is opened again, and before a failed settlement is retried.
    longest_pause: float = 30.0


DEFAULT_TIMING: Final = Timing()


def reporter_name() -> str:
    """Name of this reporter for people: host name and process ID."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Reporter:
    """Reports for one deployment until it is stopped. One thread receives; the caller of `run` settles."""

    def __init__(
        self,
        client: Client,
        open_instance: Callable[[], DagsterInstance],
        deployment: str,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            client: Client of the coordinator; closed when `run` returns.
            open_instance: Opens a Dagster instance for the reporter alone.
            deployment: Name of the deployment at the coordinator.
            timing: Pauses and limits.
        """
        self._client = client
        self._open_instance = open_instance
        self._deployment = deployment
        self._timing = timing
        self._backoff = Backoff(1.0, timing.longest_pause)
        self._stopped = threading.Event()
        self._queue = ReportQueue()
        self._follower: ReportFollower | None = None

    def run(self) -> None:
        """Report until `stop`. Failures are logged and retried."""
        failures = 0
        with self._client:
            while not self._stopped.is_set():
                try:
                    with self._open_instance() as instance:
                        self._serve(instance)
                except Exception:
                    failures += 1
                    logger.exception("No reports for deployment %s yet, retrying", self._deployment)
                    self._stopped.wait(self._backoff.pause(failures))

    def stop(self) -> None:
        """Make `run` return soon. Thread-safe; may be called repeatedly."""
        self._stopped.set()
        self._queue.close()
        follower = self._follower
        if follower is not None:
            follower.close()

    def _serve(self, instance: DagsterInstance) -> None:
        listener = threading.Thread(target=self._listen, name="runyard-reports", daemon=True)
        listener.start()
        settlement = Settler(self._client, instance)
        reconciler = Reconciler(self._client, instance, self._deployment, self._timing.orphan_grace)
        next_reconciliation = time.monotonic() + self._reconcile_pause()
        while not self._stopped.is_set():
            report = self._queue.take(max(0.0, next_reconciliation - time.monotonic()))
            if report is not None:
                self._settle(settlement, report)
            if time.monotonic() >= next_reconciliation:
                _reconcile(reconciler)
                next_reconciliation = time.monotonic() + self._reconcile_pause()
        listener.join(timeout=5)

    def _reconcile_pause(self) -> float:
        return jittered(self._timing.reconcile_every, 0.5)

    def _listen(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                with closing(self._client.follow_reports(self._deployment, reporter_name())) as follower:
                    self._follower = follower
                    if self._stopped.is_set():  # `stop` ran before there was a follower to close
                        return
                    for run in follower:
                        failures = 0
                        self._queue.add(PendingReport(run))
            except Exception as error:
                level = logging.WARNING if failures == 0 else logging.DEBUG
                logger.log(level, "No reports for deployment %s, retrying: %s", self._deployment, error)
            failures += 1
            self._stopped.wait(self._backoff.pause(failures))

    def _settle(self, settlement: "Settler", report: PendingReport) -> None:
        try:
            settled = settlement.settle(report)
        except Exception:
            logger.exception("Could not settle run %s in Dagster, retrying", report.run.run_id)
            pause = self._backoff.pause(report.failures + 1)
            self._queue.postpone(replace(report, failures=report.failures + 1), pause)
            return
        if not settled:
            self._queue.postpone(replace(report, drained=True), self._timing.drain)
        elif report.run.phase == run_pb2.PHASE_FINISHED:
            self._acknowledge(report.run)

    def _acknowledge(self, run: run_pb2.Run) -> None:
        """Acknowledge a report. If this gets lost, the coordinator repeats the report."""
        follower = self._follower
        try:
            if follower is not None:
                follower.acknowledge([attempt_key(run)])
        except Exception as error:
            logger.warning("Could not acknowledge run %s: %s", run.run_id, error)
            if follower is not None:
                follower.close()


class Settler:
    """Settles single attempts: reads the run, decides, writes."""

    def __init__(self, client: Client, instance: DagsterInstance) -> None:
        self._client = client
        self._instance = instance
        self._announced: OrderedDict[tuple[str, int, bool, str], None] = OrderedDict()

    def settle(self, report: PendingReport) -> bool:
        """Settle an attempt in Dagster.

        Returns:
            False if the worker's last writes may still be on their way: settle it again later.
        """
        settlement = self._settlement(report.run)
        match settlement:
            case Nothing(message):
                logger.debug("Nothing to report of run %s: %s", report.run.run_id, message)
            case Announce():
                self._announce(report.run)
            case Cancel() | Fail():
                if not report.drained:
                    return False
                self._end(report.run, settlement)
        return True

    def _settlement(self, report: run_pb2.Run) -> Settlement:
        in_dagster = self._in_dagster(report.run_id)
        is_open = in_dagster is not None and in_dagster.status not in FINISHED_STATUSES
        latest = self._latest(report) if is_open else report
        return decide(report, latest, in_dagster)

    def _in_dagster(self, run_id: str) -> DagsterState | None:
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            return None
        if run.is_finished or not self._instance.run_monitoring_enabled:
            return DagsterState(run.status, resumes=0, will_resume=False)
        resumes = self._instance.count_resume_run_attempts(run_id)
        will_resume = resumes < self._instance.run_monitoring_max_resume_run_attempts
        return DagsterState(run.status, resumes, will_resume)

    def _latest(self, report: run_pb2.Run) -> run_pb2.Run:
        try:
            return self._client.get_run(report.run_id).run
        except RunNotFound:
            return report

    def _announce(self, run: run_pb2.Run) -> None:
        if run.phase == run_pb2.PHASE_RUNNING and run.failed_places:
            # In the queue, the report of the start may have replaced the report of the move.
            moved = run_pb2.Run()
            moved.CopyFrom(run)
            moved.phase = run_pb2.PHASE_ASSIGNED
            self._announce_once(moved)
        self._announce_once(run)

    def _announce_once(self, run: run_pb2.Run) -> None:
        progress = run.message if run.phase == run_pb2.PHASE_STARTING else ""
        event = (run.run_id, run.attempt, run.phase == run_pb2.PHASE_RUNNING, progress)
        if event not in self._announced:
            write_announcement(self._instance, run)
            self._announced[event] = None
        if len(self._announced) > _ANNOUNCED_KEPT:
            self._announced.popitem(last=False)

    def _end(self, report: run_pb2.Run, settlement: Cancel | Fail) -> None:
        match settlement:
            case Cancel(message):
                write_cancellation(self._instance, report, message)
            case Fail(message, reason):
                write_failure(self._instance, report, message, reason)
        logger.info("Reported run %s to Dagster: %s", report.run_id, settlement.message)


def _reconcile(reconciler: Reconciler) -> None:
    try:
        reconciler.run_once()
    except Exception as error:
        logger.warning("Could not compare the coordinator's runs with Dagster, retrying: %s", error)
