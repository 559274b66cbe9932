"""The state and the outcome of a worker, in sentences for people and words for programs."""

import signal

from runyard.common.humanize import byte_size
from runyard.v1 import run_pb2

_ENDINGS = {
    run_pb2.OUTCOME_KIND_OOM_KILLED: "was killed because it ran out of memory",
    run_pb2.OUTCOME_KIND_START_FAILED: "could not be started",
    run_pb2.OUTCOME_KIND_STOPPED: "was stopped",
    run_pb2.OUTCOME_KIND_TIMED_OUT: "exceeded its time limit",
    run_pb2.OUTCOME_KIND_NODE_LOST: "was lost together with its node",
    run_pb2.OUTCOME_KIND_EXIT_UNKNOWN: "is over; its exit was not observed",
    run_pb2.OUTCOME_KIND_NODE_SHUTDOWN: "was stopped because its machine shut down",
}


def explain_end(run: run_pb2.Run) -> str:
    """The outcome of a finished attempt, with everything known about the cause."""
    outcome = run.outcome
    parts = [f"The run worker {_ending(outcome)}{_memory(outcome)}{_where(run)}."]
    if outcome.message and not _is_plain_exit(outcome):
        parts.append(_sentence(outcome.message))
    return " ".join(parts)


def exit_cause(run: run_pb2.Run) -> str:
    """The cause of a finished attempt's end, as one word for programs; docs/isolation.md lists them."""
    outcome = run.outcome
    if outcome.kind == run_pb2.OUTCOME_KIND_STOPPED and run.stop_requested:
        return "stopped_by_user"
    if outcome.cause:
        return outcome.cause
    if outcome.kind == run_pb2.OUTCOME_KIND_TIMED_OUT and not run.HasField("running_at"):
        return "start_timeout"
    if outcome.kind in _ENDINGS:
        return outcome_name(outcome.kind).lower()
    if outcome.HasField("signal"):
        return f"signal_{signal_name(outcome.signal).removeprefix('signal ')}"
    return f"exit_code_{outcome.exit_code}" if outcome.HasField("exit_code") else "failed"


def explain_position(run: run_pb2.Run) -> str:
    """The phase of an attempt, its node, and the latest message about it."""
    phase = phase_name(run.phase)
    silence = " The node is silent; the worker is assumed to be running." if run.unreachable else ""
    message = f" {_sentence(run.message)}" if run.message else ""
    return f"Attempt {run.attempt} is {phase}{_on_node(run)}.{silence}{message}"


def worker_id(run: run_pb2.Run) -> str:
    """Name of the worker; also the path of its run directory on the node."""
    return f"{run.run_id}/{run.attempt}"


def phase_name(phase: run_pb2.Phase.ValueType) -> str:
    return run_pb2.Phase.Name(phase).removeprefix("PHASE_")


def outcome_name(kind: run_pb2.OutcomeKind.ValueType) -> str:
    return run_pb2.OutcomeKind.Name(kind).removeprefix("OUTCOME_KIND_")


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; signals without a name keep their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _ending(outcome: run_pb2.Outcome) -> str:
    if outcome.kind == run_pb2.OUTCOME_KIND_SUCCEEDED:
        return "exited with code 0 and left the run unfinished"
    return _ENDINGS.get(outcome.kind) or _exit(outcome)


def _is_plain_exit(outcome: run_pb2.Outcome) -> bool:
    return outcome.kind == run_pb2.OUTCOME_KIND_FAILED and (
        outcome.HasField("signal") or outcome.HasField("exit_code")
    )


def _exit(outcome: run_pb2.Outcome) -> str:
    if outcome.HasField("signal"):
        return f"was killed by {signal_name(outcome.signal)}"
    if outcome.HasField("exit_code"):
        return f"exited with code {outcome.exit_code}"
    return "failed"


def _memory(outcome: run_pb2.Outcome) -> str:
    if outcome.kind != run_pb2.OUTCOME_KIND_OOM_KILLED:
        return ""
    known = {"limit": outcome.memory_limit_bytes, "peak": outcome.peak_rss_bytes}
    amounts = ", ".join(f"{name} {byte_size(count)}" for name, count in known.items() if count)
    return f" ({amounts})" if amounts else ""


def _where(run: run_pb2.Run) -> str:
    pid = f", pid {run.pid}" if run.pid else ""
    return f"{_on_node(run)} (attempt {run.attempt}{pid})"


def _on_node(run: run_pb2.Run) -> str:
    if not run.node:
        return ""
    return f" on node {run.node} of cluster {run.cluster}" if run.cluster else f" on node {run.node}"


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
