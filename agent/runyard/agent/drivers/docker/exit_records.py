"""From the state of a container that is over to the exit record on its attempt."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from signal import Signals
from typing import Any

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.exit_records import in_mib, never_started, rebooted
from runyard.agent.supervisor.records import Cause, ContainerRecord, ExitRecord, StopRequest

LOST_WITH_THE_ENGINE = 255
"""Exit code that the engine invents for a container which was gone when the engine came back."""

NOT_EXECUTABLE = frozenset({126, 127})
"""Exit codes of an init whose program cannot be executed, or does not exist, as of a runtime."""


@dataclass(frozen=True)
class ContainerState:
    """State of a container as the engine reports it."""

    id: str
    status: str
    """`created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
    pid: int
    exit_code: int
    oom_killed: bool
    error: str
    """Why the engine could not start it."""
    finished_at: float
    """Unix time in seconds; 0 if it never ran."""
    memory_limit: int
    """Bytes; 0 for none."""
    stop_signal: str

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> "ContainerState":
        """From the engine's answer to an inspection."""
        state = attrs["State"]
        return cls(
            id=attrs["Id"],
            status=state["Status"],
            pid=state.get("Pid") or 0,
            exit_code=state.get("ExitCode") or 0,
            oom_killed=bool(state.get("OOMKilled")),
            error=state.get("Error") or "",
            finished_at=_unix_time(state.get("FinishedAt") or ""),
            memory_limit=(attrs.get("HostConfig") or {}).get("Memory") or 0,
            stop_signal=(attrs.get("Config") or {}).get("StopSignal") or "SIGTERM",
        )

    @property
    def is_alive(self) -> bool:
        """True if a worker may be in it."""
        return self.status in ("running", "paused", "restarting")

    @property
    def may_be_out_of_memory(self) -> bool:
        """True if it was killed and the kernel's OOM killer may be the cause."""
        is_killed = self.exit_code == 128 + Signals.SIGKILL
        return is_killed and self.memory_limit > 0 and not self.oom_killed

    @property
    def was_started(self) -> bool:
        """True if it ever ran."""
        return self.status != "created"


def container_ended(
    state: ContainerState,
    stop: StopRequest | None,
    recorded: ContainerRecord | None,
    peak_bytes: int,
) -> ExitRecord:
    """The exit record of a container that ran and is over.

    Args:
        state: What the engine says.
        stop: The request to stop it, if there was one.
        recorded: What was noted when it ran; None if it was never seen running.
        peak_bytes: The most memory that was seen in use; 0 if it was not measured.
    """
    if recorded is not None and _was_rebooted(state, recorded):
        return rebooted(stop)
    signal = state.exit_code - 128 if _is_signal(state.exit_code - 128) else None
    code = None if signal else state.exit_code
    how = f"killed by signal {signal} ({Signals(signal).name})" if signal else f"exited with code {code}"
    cause: Cause = "signaled" if signal else "exited"
    exit_record = ExitRecord(
        cause=stop.cause if stop else cause,
        message=f"stopped ({stop.reason}): {how}" if stop else how,
        ended_at=state.finished_at or time.time(),
        code=code,
        signal=signal,
        peak_rss_bytes=peak_bytes,
        stop_requested=stop is not None,
        memory_limit_bytes=state.memory_limit,
        why=stop.why if stop else "",
    )
    return _out_of_memory(exit_record) if state.oom_killed else exit_record


def container_gone(stop: StopRequest | None) -> ExitRecord:
    """The exit record of a container that was removed before its end was observed."""
    if stop is not None:
        message = f"stopped ({stop.reason}): its container was removed meanwhile"
        return never_started(stop.cause, message, stop.why)
    return never_started(
        "exit_unknown", "its container was removed, not by Runyard, and its exit is lost with it"
    )


def _out_of_memory(exit_record: ExitRecord) -> ExitRecord:
    """The exit record on a container in which the kernel killed a process because memory ran out."""
    # A worker that ended well, or by request, did so although one of its processes was killed.
    if exit_record.stop_requested or exit_record.code == 0:
        message = (
            f"{exit_record.message}; the kernel had killed a process in the container because memory ran out"
        )
        return replace(exit_record, message=message)
    limit, seen = exit_record.memory_limit_bytes, exit_record.peak_rss_bytes
    where = f"at its memory limit of {in_mib(limit)}" if limit else "because memory ran out; it had no limit"
    sample = f"at most {in_mib(seen)} were seen in use" if seen else "it ended before the first measurement"
    # A container that is over cannot be measured. But where there is a limit, all of it was in use.
    return replace(
        exit_record,
        cause="oom_killed",
        message=f"killed by the kernel {where}; {sample}",
        peak_rss_bytes=max(limit, seen),
    )


def _is_signal(number: int) -> bool:
    return any(number == known for known in Signals)


def _was_rebooted(state: ContainerState, recorded: ContainerRecord) -> bool:
    booted_at = time.time() - procfs.boottime()
    return (
        recorded.boot_id != procfs.boot_id()
        and state.exit_code == LOST_WITH_THE_ENGINE
        and not 0 < state.finished_at < booted_at
    )


def _unix_time(text: str) -> float:
    """From RFC 3339 as Go prints it; year 1 stands for never."""
    if not text or text.startswith("0001"):
        return 0.0
    return datetime.fromisoformat(text).timestamp()
