"""The audit log as a file: one JSON line for each event, only ever appended, by a thread of its own.

A line that cannot be written keeps nobody from anything: it waits, and when too many wait, those that come
then are counted, and the count is a line of its own.
"""

import contextlib
import os
import queue
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from runyard.coordinator.audit.audit import COORDINATOR, Event, LinesLost, line_of

LINES_WAITING: Final = 10_000
"""Events that may wait for the disk."""

RETRY_SECONDS: Final = 1.0
"""Between two tries to write to a disk that refuses."""

LAST_WRITE_SECONDS: Final = 2.0
"""For what waits when the coordinator stops."""

_TOGETHER: Final = 500

log = structlog.get_logger("runyard.coordinator.audit")


class AuditFile:
    """Writes events to a file, in a thread of its own. Files that are moved away are begun anew.

    Args:
        path: The file; made for this user alone, and only ever appended to.
        waiting: Events that may wait for the disk.

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
        """Has an event written. Never waits, and never fails."""
        try:
            self._lines.put_nowait(line_of(event, datetime.now(UTC)))
        except queue.Full:
            with self._lost_lock:
                self._lost += 1
                is_first = self._lost == 1
            if is_first:
                log.error("audit_overflows", path=str(self._path), remedy="free some space on its disk")

    def close(self) -> None:
        """Gives what waits a last chance, and closes the file."""
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
                self._append(line_of(LinesLost(by=COORDINATOR, count=lost), datetime.now(UTC)))
        self._file.close()

    def _next_lines(self) -> tuple[list[bytes], bool]:
        """Waits for a line, and takes what else is there; True if there will be no more."""
        lines: list[bytes] = []
        line = self._lines.get()
        while line is not None:
            lines.append(line)
            if len(lines) == _TOGETHER:
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
        """Returns when all of it is in the file, or the coordinator stops before the disk takes it."""
        is_first_try = True
        while data:
            try:
                data = data[self._file.append(data) :]
            except OSError as error:
                if is_first_try:
                    log.error("audit_not_written", path=str(self._path), error=error.strerror)
                is_first_try = False
                if self._closing.wait(RETRY_SECONDS):
                    return


class _File:
    """A file that is appended to; another one when somebody has moved it away, as logrotate does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._open()

    def append(self, data: bytes) -> int:
        """Writes what the disk takes now; returns how many bytes that were."""
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
