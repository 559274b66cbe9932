"""The audit log as a file: a separate thread appends one JSON line for each event.

A line that cannot be written delays no caller: it waits. When too many wait, further events are dropped and
counted, and the count is written as an event.
"""

import contextlib
import json
import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, assert_never

import structlog

from runyard.common.secrets import masked
from runyard.coordinator.audit.events import COORDINATOR, Done, Event, EventsDropped, Failed, Outcome, Refused

LINES_WAITING: Final = 10_000
"""Maximum number of events that wait for the disk."""

RETRY_SECONDS: Final = 1.0
"""Seconds between two attempts to write to a full disk."""

LAST_WRITE_SECONDS: Final = 2.0
"""Seconds to write the waiting events when the coordinator stops."""

LONGEST_TEXT: Final = 600
"""Maximum characters of any text in a line, so that callers cannot fill the disk."""

_BATCH: Final = 500

_KEYS_ON_DISK: Final = {"message": "why"}
"""Fields of events that have another name on disk."""

log = structlog.get_logger("runyard.coordinator.audit")


class AuditFile:
    """Writes events to a file in a separate thread. If the file is moved away, a new one is created.

    Args:
        path: The file, created readable for this user only.
        waiting: Maximum number of events that wait for the disk.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, waiting: int = LINES_WAITING) -> None:
        self._path = path
        self._file = _File(path)
        self._lines: queue.Queue[bytes | None] = queue.Queue(waiting)
        self._lost = 0
        self._lost_lock = threading.Lock()
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write, name="audit", daemon=True)
        self._writer.start()

    def note(self, event: Event) -> None:
        """Queue an event for the file. Never waits and never fails."""
        try:
            self._lines.put_nowait(json_line(event, datetime.now(UTC)))
        except queue.Full:
            with self._lost_lock:
                self._lost += 1
                is_first = self._lost == 1
            if is_first:
                log.error("audit_overflows", path=str(self._path), remedy="free some space on its disk")

    def close(self) -> None:
        """Write the waiting events for at most `LAST_WRITE_SECONDS`, and close the file."""
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._writer.join(LAST_WRITE_SECONDS)

    def _write(self) -> None:
        is_last = False
        while not is_last:
            lines, is_last = self._next_lines()
            self._append(b"".join(lines))
            if lost := self._take_lost():
                self._append(json_line(EventsDropped(by=COORDINATOR, count=lost), datetime.now(UTC)))
        self._file.close()

    def _next_lines(self) -> tuple[list[bytes], bool]:
        """Wait for lines and return all that are queued; True if no more will follow."""
        lines: list[bytes] = []
        line = self._lines.get()
        while line is not None:
            lines.append(line)
            if len(lines) == _BATCH:
                return lines, False
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return lines, self._closing.is_set()
        return lines, True

    def _take_lost(self) -> int:
        with self._lost_lock:
            lost, self._lost = self._lost, 0
        return lost

    def _append(self, data: bytes) -> None:
        """Append data; retry until all is written or the coordinator stops."""
        is_first_attempt = True
        while data:
            try:
                data = data[self._file.append(data) :]
            except OSError as error:
                if is_first_attempt:
                    log.error("audit_not_written", path=str(self._path), error=error.strerror)
                is_first_attempt = False
                if self._closing.wait(RETRY_SECONDS):
                    return


class _File:
    """A file that is appended to, and opened again after logrotate or a person has moved it away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._open()

    def append(self, data: bytes) -> int:
        """Write as much as the disk takes; return the number of bytes written."""
        if not self._is_in_place():
            opened = self._open()
            os.close(self._descriptor)
            self._descriptor = opened
        return os.write(self._descriptor, data)

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def json_line(event: Event, at: datetime) -> bytes:
    """Return the line of an event, without secrets and of bounded length."""
    values = {
        _KEYS_ON_DISK.get(name, name): value
        for name, value in asdict(event).items()
        if name not in ("by", "outcome")
    }
    line: dict[str, Any] = {
        "at": at.isoformat(timespec="milliseconds"),
        "who": event.by.who,
        "peer": event.by.peer,
        "action": event.action,
        **values,
        **_outcome(event.outcome),
    }
    return json.dumps(_bounded(line), ensure_ascii=False).encode(errors="replace") + b"\n"


def _outcome(outcome: Outcome) -> dict[str, str]:
    match outcome:
        case Done():
            return {"outcome": "done"}
        case Refused(message):
            return {"outcome": "refused", "reason": message}
        case Failed(message):
            return {"outcome": "failed", "reason": message}
        case _:
            assert_never(outcome)


def _bounded(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: masked(value)[:LONGEST_TEXT] if isinstance(value, str) else value for key, value in line.items()
    }
