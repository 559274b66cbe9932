"""Runyard's events in a run's log: few, each with the facts that a person needs to continue from there.

No message may be "Launching a new run worker to resume run": Dagster counts a run's resumes by that text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dagster import MetadataValue
from dagster._core.definitions.metadata import RawMetadataValue

from runyard.common.humanize import byte_size, duration_words
from runyard.common.protobuf_time import to_seconds
from runyard.common.requirement_words import in_one_line
from runyard.launcher.causes import (
    exit_cause,
    explain_end,
    outcome_name,
    signal_name,
    worker_id,
)
from runyard.v1 import run_pb2

# Seconds; a shorter wait is not mentioned.
SHORTEST_WAIT_SHOWN: Final = 1.0


@dataclass(frozen=True)
class EngineEvent:
    """An event of a run's log."""

    message: str
    metadata: Mapping[str, RawMetadataValue] = field(default_factory=dict)


def launched(run: run_pb2.Run) -> EngineEvent:
    """The coordinator accepted the run; `run` is its answer."""
    return EngineEvent(_launch_message(run), {**_place(run), **_placement(run)})


def worker_started(run: run_pb2.Run) -> EngineEvent:
    """The worker process exists."""
    worker = f"Worker started on node {run.node} (pid {run.pid}, attempt {run.attempt})"
    return EngineEvent(f"{worker}{_because(run)}", {**_place(run), **_placement(run), **_failed_places(run)})


def still_starting(run: run_pb2.Run) -> EngineEvent:
    """The node has accepted the run, and its worker has not started yet."""
    return EngineEvent(f"Node {run.node} is preparing the worker: {run.message}", _place(run))


def placed_again(run: run_pb2.Run) -> EngineEvent:
    """A node did not start the run; its next attempt goes to another node."""
    last = run.failed_places[-1]
    where = f"goes to node {run.node}" if run.node else "waits for another node"
    reason = last.reason.rstrip(".")
    message = f"Node {last.node} did not start the run: {reason}. Attempt {run.attempt} {where}"
    return EngineEvent(message, {**_place(run), **_failed_places(run)})


def worker_ended(run: run_pb2.Run) -> EngineEvent:
    """The worker is over, and Dagster does not know that yet."""
    return EngineEvent(explain_end(run), {**_place(run), **_end(run), **_failed_places(run)})


def unknown_to_coordinator(address: str) -> EngineEvent:
    """Termination was requested for a started run that the coordinator does not know."""
    return EngineEvent(
        f"Runyard's coordinator at {address} does not know this run, so there is no worker to stop. "
        "If a worker of it appears later, it will be stopped. If you know that no worker is left, or another "
        "run launcher started the run, terminate it with the force option."
    )


def _launch_message(run: run_pb2.Run) -> str:
    if run.phase == run_pb2.PHASE_FINISHED:
        return f"Runyard did not start the run: attempt {run.attempt} is already over. {explain_end(run)}"
    if not run.node:
        reason = run.message or "no node can take it now"
        waiting = reason if reason.startswith("waiting") else f"waiting: {reason}"
        return f"Runyard accepted the run as attempt {run.attempt}, {waiting}"
    where = f"on node {run.node} of cluster {run.cluster}"
    return f"Runyard accepted the run as attempt {run.attempt} {where}{_because(run)}"


def _because(run: run_pb2.Run) -> str:
    return f": {run.placed_because.rstrip('.')}" if run.placed_because else ""


def _waited(run: run_pb2.Run) -> str:
    """Time from the launch until a node was chosen; empty if unknown or negligible."""
    if not (run.HasField("launched_at") and run.HasField("assigned_at")):
        return ""
    seconds = to_seconds(run.assigned_at) - to_seconds(run.launched_at)
    return duration_words(seconds) if seconds >= SHORTEST_WAIT_SHOWN else ""


def _placement(run: run_pb2.Run) -> dict[str, RawMetadataValue]:
    """The requirements of the run, and the placement that they led to."""
    facts = {
        "requirements": in_one_line(run.requirements) if run.HasField("requirements") else "",
        "routing rule": run.rule,
        "placed because": run.placed_because,
        "waited": _waited(run),
    }
    return {name: MetadataValue.text(fact) for name, fact in facts.items() if fact}


def _place(run: run_pb2.Run) -> dict[str, RawMetadataValue]:
    place: dict[str, RawMetadataValue] = {
        "run worker": MetadataValue.text(worker_id(run)),
        "attempt": MetadataValue.int(run.attempt),
    }
    if run.node:
        place |= {"cluster": MetadataValue.text(run.cluster), "node": MetadataValue.text(run.node)}
    if run.pid:
        place["pid"] = MetadataValue.int(run.pid)
    return place


def _failed_places(run: run_pb2.Run) -> dict[str, RawMetadataValue]:
    """Nodes that did not start the run, with their reasons."""
    if not run.failed_places:
        return {}
    reasons = "\n".join(f"{place.node}: {place.reason}" for place in run.failed_places)
    return {"not started by": MetadataValue.text(reasons)}


def _end(run: run_pb2.Run) -> dict[str, RawMetadataValue]:
    outcome = run.outcome
    end: dict[str, RawMetadataValue] = {
        "outcome": MetadataValue.text(outcome_name(outcome.kind)),
        "exit cause": MetadataValue.text(exit_cause(run)),
    }
    if outcome.HasField("exit_code"):
        end["exit code"] = MetadataValue.int(outcome.exit_code)
    if outcome.HasField("signal"):
        end["signal"] = MetadataValue.text(signal_name(outcome.signal))
    if outcome.memory_limit_bytes:
        end["memory limit"] = MetadataValue.text(byte_size(outcome.memory_limit_bytes))
    if outcome.peak_rss_bytes:
        end["peak memory"] = MetadataValue.text(byte_size(outcome.peak_rss_bytes))
    if outcome.stderr_tail:
        end["stderr"] = MetadataValue.md(_as_code(outcome.stderr_tail))
    return end


def _as_code(text: str) -> str:
    """Markdown that shows text verbatim. Indented, because a worker may print any code fence."""
    return "\n".join(f"    {line}" for line in text.splitlines())
