"""The check of `runyard doctor` on runs that wait: who ends a wait that takes too long, Runyard or Dagster.

Dagster's run monitoring fails a run that has not started `start_timeout_seconds` after its launch, and takes
no notice that it waits in Runyard's queue. Runyard's `max_queue_seconds` ends a wait with its reason.
"""

import os
from collections.abc import Mapping
from typing import Any

from runyard.cli.doctor.findings import Finding, ok, warning

SUBJECT = "run monitoring"

# dagster/_core/instance/methods/settings_methods.py, run_monitoring_start_timeout_seconds.
_DAGSTER_START_TIMEOUT_SECONDS = 180

# A longer wait needs no warning.
_PATIENT_SECONDS = 3600

# From the end of the wait until the worker has written its first event, where the launcher does not bound it.
_TIME_TO_START_SECONDS = 60.0


def examine_waiting(monitoring: object, launcher: Mapping[str, Any]) -> Finding:
    """Looks for runs that Dagster would fail while they wait for a node.

    Args:
        monitoring: `run_monitoring` of dagster.yaml.
        launcher: `run_launcher.config` of dagster.yaml.
    """
    if not isinstance(monitoring, dict) or not monitoring.get("enabled"):
        return ok(SUBJECT, "off: Runyard's reporter reports dead workers to Dagster without it")
    timeout = monitoring.get("start_timeout_seconds", _DAGSTER_START_TIMEOUT_SECONDS)
    if not isinstance(timeout, int) or timeout <= 0:
        return ok(SUBJECT, "on, and lets runs wait for a node as long as they must")
    longest_wait = _seconds(launcher, "max_queue_seconds")
    if longest_wait is None:
        return _unbounded_wait(timeout)
    time_to_start = _seconds(launcher, "start_timeout_seconds") or _TIME_TO_START_SECONDS
    return _bounded_wait(timeout, longest_wait, time_to_start)


def _unbounded_wait(timeout: int) -> Finding:
    if timeout >= _PATIENT_SECONDS:
        return ok(SUBJECT, f"on; a run that waits for a node longer than {timeout} s is failed by Dagster")
    return warning(
        SUBJECT,
        f"Dagster fails a run that waits for a node longer than {timeout} s (start_timeout_seconds)",
        f"Set run_launcher.config.max_queue_seconds below {timeout}, so that Runyard ends the wait with its "
        "reason; or start_timeout_seconds above the longest wait that you expect; or let runs wait in "
        "Dagster's own queue, by its limit of concurrent runs",
    )


def _bounded_wait(timeout: int, longest_wait: float, time_to_start: float) -> Finding:
    needed = longest_wait + time_to_start
    if needed <= timeout:
        return ok(
            SUBJECT,
            f"on; Runyard ends a wait for a node after {longest_wait:g} s, before Dagster does ({timeout} s)",
        )
    shorter = timeout - time_to_start
    remedy = f"Set start_timeout_seconds to {needed:g} or more"
    if shorter > 0:
        remedy += f", or max_queue_seconds to {shorter:g} or less"
    return warning(
        SUBJECT,
        f"Dagster fails a run {timeout} s after its launch (start_timeout_seconds), but it may wait for a "
        f"node for {longest_wait:g} s (max_queue_seconds) and take {time_to_start:g} s to start",
        remedy,
    )


def _seconds(settings: Mapping[str, Any], name: str) -> float | None:
    """A setting of the launcher; None if it is missing or not a number, which another check reports."""
    value = settings.get(name)
    if isinstance(value, dict):
        value = os.environ.get(str(value.get("env")))
    try:
        return float(value) if value is not None else None
    except (TypeError, ValueError):
        return None
