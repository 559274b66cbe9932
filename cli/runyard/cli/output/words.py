"""Times and states in short words, for tables."""

from google.protobuf.timestamp_pb2 import Timestamp

from runyard.cli.output.json_output import enum_word
from runyard.common.humanize import short_duration
from runyard.common.protobuf_time import to_seconds
from runyard.v1 import fleet_pb2, run_pb2

_PHASE_COLORS = {
    run_pb2.PHASE_QUEUED: "yellow",
    run_pb2.PHASE_ASSIGNED: "yellow",
    run_pb2.PHASE_STARTING: "cyan",
    run_pb2.PHASE_RUNNING: "blue",
    run_pb2.PHASE_STOPPING: "magenta",
}
_OUTCOME_COLORS = {
    run_pb2.OUTCOME_KIND_SUCCEEDED: "green",
    run_pb2.OUTCOME_KIND_STOPPED: "magenta",
}
_NODE_COLORS = {
    fleet_pb2.NODE_STATE_READY: "green",
    fleet_pb2.NODE_STATE_SUSPECT: "yellow",
    fleet_pb2.NODE_STATE_UNREACHABLE: "red",
    fleet_pb2.NODE_STATE_LOST: "bold red",
}
_WARM_COLORS = {
    fleet_pb2.WARM_SERVER_STATE_READY: "green",
    fleet_pb2.WARM_SERVER_STATE_PRELOADING: "cyan",
    fleet_pb2.WARM_SERVER_STATE_UNUSABLE: "red",
    fleet_pb2.WARM_SERVER_STATE_RESTING: "yellow",
}


def age(since: Timestamp, now: float) -> str:
    """Time since a timestamp; empty if it is not set.

    Args:
        since: The time.
        now: Seconds since the epoch.
    """
    return short_duration(now - to_seconds(since)) if since.ToNanoseconds() else ""


def state_word(run: run_pb2.Run) -> str:
    """The phase, or the outcome of a finished run, in one word."""
    if run.phase == run_pb2.PHASE_FINISHED:
        return enum_word(run_pb2.OutcomeKind.DESCRIPTOR, run.outcome.kind)
    return enum_word(run_pb2.Phase.DESCRIPTOR, run.phase)


def run_state(run: run_pb2.Run) -> str:
    """State of a run with its colour and remarks."""
    if run.phase == run_pb2.PHASE_FINISHED:
        color = _OUTCOME_COLORS.get(run.outcome.kind, "red")
    else:
        color = _PHASE_COLORS.get(run.phase, "white")
    beside = ""
    if run.phase != run_pb2.PHASE_FINISHED:
        beside += " (unreachable)" if run.unreachable else ""
        beside += " (stop requested)" if run.stop_requested and run.phase != run_pb2.PHASE_STOPPING else ""
    return f"[{color}]{state_word(run)}[/]{beside}"


def node_state(node: fleet_pb2.Node) -> str:
    """A node's state with its colour, the state that an operator gave it, and its pressures."""
    word = enum_word(fleet_pb2.NodeState.DESCRIPTOR, node.state)
    asked = ["draining"] if node.draining else ["cordoned"] if node.cordoned else []
    more = ", ".join([*asked, *(pressure(each) for each in node.pressures)])
    return f"[{_NODE_COLORS.get(node.state, 'white')}]{word}[/]{f' ({more})' if more else ''}"


def pressure(short_of: fleet_pb2.Pressure) -> str:
    """`memory pressure`; of a kind that is not known here, `pressure`."""
    kind = enum_word(fleet_pb2.PressureKind.DESCRIPTOR, short_of.kind)
    return "pressure" if kind == "unspecified" else f"{kind} pressure"


def warm_server_state(server: fleet_pb2.WarmServer) -> str:
    """A warm server's state with its colour."""
    word = enum_word(fleet_pb2.WarmServerState.DESCRIPTOR, server.state)
    return f"[{_WARM_COLORS.get(server.state, 'white')}]{word}[/]"


def labels(pairs: dict[str, str]) -> str:
    """`a=1 b=2`, sorted."""
    return " ".join(f"{key}={value}" for key, value in sorted(pairs.items()))
