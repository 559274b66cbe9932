"""Writes into Dagster's storage.

The run is read again right before its status is written, because the storage lets a finished run end twice.
"""

from dagster import DagsterInstance, DagsterRun
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason

from runyard.launcher import tags
from runyard.launcher.causes import exit_cause, outcome_name
from runyard.launcher.engine_events import (
    EngineEvent,
    placed_again,
    still_starting,
    worker_ended,
    worker_started,
)
from runyard.v1 import run_pb2


def write_event(instance: DagsterInstance, run: DagsterRun, event: EngineEvent) -> None:
    """Add an event to the run's log."""
    instance.report_engine_event(event.message, run, EngineEventData(event.metadata))


def write_announcement(instance: DagsterInstance, worker: run_pb2.Run) -> None:
    """Log where the worker runs, why it has not started yet, or that another node will start it."""
    run = _unfinished(instance, worker.run_id)
    if run is not None:
        write_event(instance, run, _announcement(worker))


def _announcement(worker: run_pb2.Run) -> EngineEvent:
    match worker.phase:
        case run_pb2.PHASE_RUNNING:
            return worker_started(worker)
        case run_pb2.PHASE_STARTING:
            return still_starting(worker)
        case _:
            return placed_again(worker)


def write_cancellation(instance: DagsterInstance, worker: run_pb2.Run, message: str) -> None:
    """End the run as canceled. Only for a worker that is proven to be over."""
    run = _described(instance, worker)
    if run is not None:
        instance.report_run_canceled(run, message)


def write_failure(
    instance: DagsterInstance, worker: run_pb2.Run, message: str, reason: RunFailureReason
) -> None:
    """End the run as failed. Only for a worker that is proven to be over.

    Args:
        instance: Dagster's storage.
        worker: The finished attempt.
        message: Shown as the cause.
        reason: Among other things, decides whether Dagster's run retries apply.
    """
    run = _described(instance, worker)
    if run is not None:
        instance.report_run_failed(run, message, JobFailureData(error=None, failure_reason=reason))


def _described(instance: DagsterInstance, worker: run_pb2.Run) -> DagsterRun | None:
    """Record the worker's outcome before the status, so that the cause is visible with the status."""
    run = _unfinished(instance, worker.run_id)
    if run is not None:
        # Dagster changes tags without a lock; the worker is over, so this is the only writer.
        outcome = outcome_name(worker.outcome.kind).lower()
        instance.add_run_tags(run.run_id, {tags.OUTCOME: outcome, tags.EXIT_CAUSE: exit_cause(worker)})
        write_event(instance, run, worker_ended(worker))
    return _unfinished(instance, worker.run_id)


def _unfinished(instance: DagsterInstance, run_id: str) -> DagsterRun | None:
    run = instance.get_run_by_id(run_id)
    return None if run is None or run.is_finished else run
