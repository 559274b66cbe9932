"""Why a worker is over, and where a run is, in sentences for people."""

import signal

from runyard.v1 import run_pb2

_ENDINGS = {
    run_pb2.OUTCOME_KIND_OOM_KILLED: "was killed for want of memory",
    run_pb2.OUTCOME_KIND_START_FAILED: "could not be started",
    run_pb2.OUTCOME_KIND_STOPPED: "was stopped",
    run_pb2.OUTCOME_KIND_TIMED_OUT: "ran out of time",
    run_pb2.OUTCOME_KIND_NODE_LOST: "was lost together with its node",
    run_pb2.OUTCOME_KIND_EXIT_UNKNOWN: "is over, and nobody saw how it ended",
    run_pb2.OUTCOME_KIND_NODE_SHUTDOWN: "was stopped because its machine shut down",
}


def explain_end(run: run_pb2.Run) -> str:
    """How the finished attempt of a run ended, with all that is known of the cause."""
    outcome = run.outcome
    parts = [f"The run worker {_ending(outcome)}{_memory(outcome)}{_where(run)}."]
    if outcome.message and not _is_told_by_exit(outcome):
        parts.append(_sentence(outcome.message))
    return " ".join(parts)


def exit_cause(run: run_pb2.Run) -> str:
    """Why the finished attempt of a run ended, in one word for programs; docs/isolation.md lists them."""
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
    """Where the attempt is in its life, and why."""
    phase = phase_name(run.phase)
    silence = " The node is silent; nothing is presumed about the worker." if run.unreachable else ""
    news = f" {_sentence(run.message)}" if run.message else ""
    return f"Attempt {run.attempt} is {phase}{_on_node(run)}.{silence}{news}"


def worker_id(run: run_pb2.Run) -> str:
    """Names the worker: also the path of its directory on the node."""
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


def in_bytes(count: int) -> str:
    """A size as people write it: `1.5 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def in_time(seconds: float) -> str:
    """A span as people write it: `42 s`, `7 min`, `1 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _ending(outcome: run_pb2.Outcome) -> str:
    if outcome.kind == run_pb2.OUTCOME_KIND_SUCCEEDED:
        return "exited with code 0 and left the run unfinished"
    return _ENDINGS.get(outcome.kind) or _exit(outcome)


def _is_told_by_exit(outcome: run_pb2.Outcome) -> bool:
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
    told = ", ".join(f"{name} {in_bytes(count)}" for name, count in known.items() if count)
    return f" ({told})" if told else ""


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
