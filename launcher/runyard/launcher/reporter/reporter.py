"""Tells Dagster how workers ended, at once, instead of after minutes of run monitoring.

The coordinator serves one reporter of a deployment at a time and repeats each report until it is
acknowledged.
Before anything is written the run is read again, so a report that comes twice is written once.
"""

import logging
import os
import random
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
from runyard.launcher.reporter.dagster_writes import (
    write_announcement,
    write_cancellation,
    write_failure,
)
from runyard.launcher.reporter.reconcile import Sweep
from runyard.launcher.reporter.report_queue import Agenda, Case
from runyard.launcher.reporter.settlement import (
    Announce,
    Cancel,
    Fail,
    InDagster,
    Nothing,
    Verdict,
    decide,
)
from runyard.v1 import run_pb2

logger = logging.getLogger(__name__)

_ANNOUNCED_KEPT: Final = 10_000


@dataclass(frozen=True)
class Timing:
    """When the reporter does what; all in seconds."""

    # Between a worker's exit and the verdict: its last event may still be in flight to a slow database.
    drain: float = 0.1
    sweep_every: float = 15.0
    # For how long a worker may outlive its run.
    linger: float = 30.0
    # Largest pause before a broken stream is opened again, and before a run is tried again.
    longest_pause: float = 30.0


DEFAULT_TIMING: Final = Timing()


def backoff(failures: int, longest: float) -> float:
    """Seconds to wait after failures in a row: drawn evenly from a window that doubles ("full jitter")."""
    return random.uniform(0.0, min(longest, 0.5 * 2.0 ** min(failures, 16)))


def reporter_name() -> str:
    """Who reports, for people."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Reporter:
    """Reports for one deployment until it is stopped. One thread listens; the caller of `run` settles."""

    def __init__(
        self,
        client: Client,
        open_instance: Callable[[], DagsterInstance],
        deployment: str,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        """Prepares; opens nothing.

        Args:
            client: Reaches the coordinator; closed when `run` returns.
            open_instance: Gives a Dagster instance that is the reporter's own.
            deployment: Name of the deployment at the coordinator.
            timing: Pauses and limits.
        """
        self._client = client
        self._open_instance = open_instance
        self._deployment = deployment
        self._timing = timing
        self._stopped = threading.Event()
        self._agenda = Agenda()
        self._follower: ReportFollower | None = None

    def run(self) -> None:
        """Reports until `stop`. What goes wrong is logged and tried again."""
        failures = 0
        with self._client:
            while not self._stopped.is_set():
                try:
                    with self._open_instance() as instance:
                        self._serve(instance)
                except Exception:
                    failures += 1
                    logger.exception("No reports for deployment %s yet, will try again", self._deployment)
                    self._stopped.wait(backoff(failures, self._timing.longest_pause))

    def stop(self) -> None:
        """Makes `run` return soon. May be called from any thread, and again."""
        self._stopped.set()
        self._agenda.close()
        follower = self._follower
        if follower is not None:
            follower.close()

    def _serve(self, instance: DagsterInstance) -> None:
        listener = threading.Thread(target=self._listen, name="runyard-reports", daemon=True)
        listener.start()
        settlement = Settlement(self._client, instance)
        sweep = Sweep(self._client, instance, self._deployment, self._timing.linger)
        next_sweep = time.monotonic() + self._sweep_pause()
        while not self._stopped.is_set():
            case = self._agenda.take(max(0.0, next_sweep - time.monotonic()))
            if case is not None:
                self._settle(settlement, case)
            if time.monotonic() >= next_sweep:
                _sweep(sweep)
                next_sweep = time.monotonic() + self._sweep_pause()
        listener.join(timeout=5)

    def _sweep_pause(self) -> float:
        return random.uniform(0.5, 1.5) * self._timing.sweep_every

    def _listen(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                with closing(self._client.follow_reports(self._deployment, reporter_name())) as follower:
                    self._follower = follower
                    if self._stopped.is_set():  # a stop in between saw no follower to close
                        return
                    for run in follower:
                        failures = 0
                        self._agenda.add(Case(run))
            except Exception as error:
                level = logging.WARNING if failures == 0 else logging.DEBUG
                logger.log(level, "No reports for deployment %s, will ask again: %s", self._deployment, error)
            failures += 1
            self._stopped.wait(backoff(failures, self._timing.longest_pause))

    def _settle(self, settlement: "Settlement", case: Case) -> None:
        try:
            settled = settlement.settle(case)
        except Exception:
            logger.exception("Could not settle run %s in Dagster, will try again", case.run.run_id)
            pause = backoff(case.failures, self._timing.longest_pause)
            self._agenda.postpone(replace(case, failures=case.failures + 1), pause)
            return
        if not settled:
            self._agenda.postpone(replace(case, drained=True), self._timing.drain)
        elif case.run.phase == run_pb2.PHASE_FINISHED:
            self._acknowledge(case.run)

    def _acknowledge(self, run: run_pb2.Run) -> None:
        """An acknowledgement that gets lost makes the coordinator repeat the report, nothing worse."""
        follower = self._follower
        try:
            if follower is not None:
                follower.acknowledge([attempt_key(run)])
        except Exception as error:
            logger.warning("Could not acknowledge run %s: %s", run.run_id, error)
            if follower is not None:
                follower.close()


class Settlement:
    """Reads an attempt's run, decides, and writes."""

    def __init__(self, client: Client, instance: DagsterInstance) -> None:
        self._client = client
        self._instance = instance
        self._announced: OrderedDict[tuple[str, int, bool, str], None] = OrderedDict()

    def settle(self, case: Case) -> bool:
        """Settles an attempt in Dagster.

        Returns:
            False if the worker's last writes may still be on their way, and it has to be looked at again.
        """
        verdict = self._verdict(case.run)
        match verdict:
            case Nothing(why):
                logger.debug("Nothing to report of run %s: %s", case.run.run_id, why)
            case Announce():
                self._announce(case.run)
            case Cancel() | Fail():
                if not case.drained:
                    return False
                self._end(case.run, verdict)
        return True

    def _verdict(self, report: run_pb2.Run) -> Verdict:
        in_dagster = self._in_dagster(report.run_id)
        is_open = in_dagster is not None and in_dagster.status not in FINISHED_STATUSES
        latest = self._latest(report) if is_open else report
        return decide(report, latest, in_dagster)

    def _in_dagster(self, run_id: str) -> InDagster | None:
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            return None
        if run.is_finished or not self._instance.run_monitoring_enabled:
            return InDagster(run.status, resumes=0, will_resume=False)
        resumes = self._instance.count_resume_run_attempts(run_id)
        will_resume = resumes < self._instance.run_monitoring_max_resume_run_attempts
        return InDagster(run.status, resumes, will_resume)

    def _latest(self, report: run_pb2.Run) -> run_pb2.Run:
        try:
            return self._client.get_run(report.run_id).run
        except RunNotFound:
            return report

    def _announce(self, run: run_pb2.Run) -> None:
        if run.phase == run_pb2.PHASE_RUNNING and run.failed_places:
            # That it moved may have been overtaken, on the agenda, by the news that it runs.
            moved = run_pb2.Run()
            moved.CopyFrom(run)
            moved.phase = run_pb2.PHASE_ASSIGNED
            self._announce_once(moved)
        self._announce_once(run)

    def _announce_once(self, run: run_pb2.Run) -> None:
        progress = run.message if run.phase == run_pb2.PHASE_STARTING else ""
        news = (run.run_id, run.attempt, run.phase == run_pb2.PHASE_RUNNING, progress)
        if news not in self._announced:
            write_announcement(self._instance, run)
            self._announced[news] = None
        if len(self._announced) > _ANNOUNCED_KEPT:
            self._announced.popitem(last=False)

    def _end(self, report: run_pb2.Run, verdict: Cancel | Fail) -> None:
        match verdict:
            case Cancel(message):
                write_cancellation(self._instance, report, message)
            case Fail(message, reason):
                write_failure(self._instance, report, message, reason)
        logger.info("Reported run %s to Dagster: %s", report.run_id, verdict.message)


def _sweep(sweep: Sweep) -> None:
    try:
        sweep.run_once()
    except Exception as error:
        logger.warning("Could not compare the coordinator's runs with Dagster, will try again: %s", error)
