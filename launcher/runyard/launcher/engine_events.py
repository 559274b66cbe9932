"""What Runyard writes into a run's event log: few events, each with what a person needs to look further.

No message may be "Launching a new run worker to resume run": Dagster counts a run's resumes by that text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dagster import MetadataValue
from dagster._core.definitions.metadata import RawMetadataValue

from runyard.common.requirement_words import in_one_line
from runyard.launcher.causes import (
    exit_cause,
    explain_end,
    in_bytes,
    in_time,
    outcome_name,
    signal_name,
    worker_id,
)
from runyard.v1 import run_pb2

# A run that waited less, in seconds, was placed at once as far as people are concerned.
WORTH_TELLING: Final = 1.0


@dataclass(frozen=True)
class EngineEvent:
    """One line of the event log."""

    message: str
    metadata: Mapping[str, RawMetadataValue] = field(default_factory=dict)


def launched(run: run_pb2.Run) -> EngineEvent:
    """The coordinator took the run; `run` is its answer."""
    return EngineEvent(_launch_message(run), {**_place(run), **_placement(run)})


def worker_started(run: run_pb2.Run) -> EngineEvent:
    """The worker process exists."""
    worker = f"Worker started on node {run.node} (pid {run.pid}, attempt {run.attempt})"
    return EngineEvent(f"{worker}{_because(run)}", {**_place(run), **_placement(run), **_failed_places(run)})


def still_starting(run: run_pb2.Run) -> EngineEvent:
    """The node has the run, and its worker does not begin yet."""
    return EngineEvent(f"Node {run.node} prepares the worker: {run.message}", _place(run))


def placed_again(run: run_pb2.Run) -> EngineEvent:
    """A node did not start the run, and its next attempt goes to another."""
    last = run.failed_places[-1]
    where = f"goes to node {run.node}" if run.node else "waits for another node"
    why = last.reason.rstrip(".")
    message = f"Node {last.node} did not start the run: {why}. Its attempt {run.attempt} {where}"
    return EngineEvent(message, {**_place(run), **_failed_places(run)})


def worker_ended(run: run_pb2.Run) -> EngineEvent:
    """The worker is over, and Dagster does not know it yet."""
    return EngineEvent(explain_end(run), {**_place(run), **_end(run), **_failed_places(run)})


def unknown_to_coordinator(address: str) -> EngineEvent:
    """A stop was asked for a started run that the coordinator never had."""
    return EngineEvent(
        f"Runyard's coordinator at {address} does not know this run, so nothing could be told to stop. "
        "A worker of it that turns up there will be stopped. If you know that no worker is left, or another "
        "run launcher started it, end the run with the option to force the termination."
    )


def _launch_message(run: run_pb2.Run) -> str:
    if run.phase == run_pb2.PHASE_FINISHED:
        return f"Runyard did not start the run: its attempt {run.attempt} is already over. {explain_end(run)}"
    if not run.node:
        reason = run.message or "no node can take it now"
        waiting = reason if reason.startswith("waiting") else f"waiting: {reason}"
        return f"Runyard accepted the run as attempt {run.attempt}, {waiting}"
    where = f"on node {run.node} of cluster {run.cluster}"
    return f"Runyard accepted the run as attempt {run.attempt} {where}{_because(run)}"


def _because(run: run_pb2.Run) -> str:
    return f": {run.placed_because.rstrip('.')}" if run.placed_because else ""


def _waited(run: run_pb2.Run) -> str:
    """From the launch until a node was chosen; empty if that is not known, or was at once."""
    if not (run.HasField("launched_at") and run.HasField("assigned_at")):
        return ""
    seconds = (run.assigned_at.ToNanoseconds() - run.launched_at.ToNanoseconds()) / 1e9
    return in_time(seconds) if seconds >= WORTH_TELLING else ""


def _placement(run: run_pb2.Run) -> dict[str, RawMetadataValue]:
    """What the run asks for, and what became of that."""
    facts = {
        "asks for": in_one_line(run.requirements) if run.HasField("requirements") else "",
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
    """Which nodes did not start the run, and why."""
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
        end["memory limit"] = MetadataValue.text(in_bytes(outcome.memory_limit_bytes))
    if outcome.peak_rss_bytes:
        end["peak memory"] = MetadataValue.text(in_bytes(outcome.peak_rss_bytes))
    if outcome.stderr_tail:
        end["stderr"] = MetadataValue.md(_as_code(outcome.stderr_tail))
    return end


def _as_code(text: str) -> str:
    """Markdown that shows text as it is; indented, for no fence is safe from what a worker may print."""
    return "\n".join(f"    {line}" for line in text.splitlines())
