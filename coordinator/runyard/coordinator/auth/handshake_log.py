"""Makes what gRPC writes to standard error of failed handshakes part of the coordinator's log.

File descriptor 2 becomes a pipe. A thread reads it: handshakes that failed become events, all else goes on to
where standard error went before. What Python writes goes there straight, and is not lost with the thread.
"""

import contextlib
import itertools
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from runyard.coordinator.auth.handshakes import Failure, Foreign, Noise, read_record

STANDARD_ERROR: Final = 2

QUIET: Final = 0.2
"""Seconds without another line after which a record counts as complete."""

AT_ONCE: Final = 20
WINDOW: Final = 10.0
"""So many failures are logged one by one in that many seconds; of more the number is."""

LARGEST_RECORD: Final = 64 * 1024
"""Bytes; a longer one is passed on as it is."""

_UNSEEN: Final = re.compile(r"[^\n\t\x20-\x7e]")

log = structlog.get_logger("runyard.coordinator.auth")


@contextlib.contextmanager
def handshake_failures_logged(again: Callable[[], None]) -> Iterator[None]:
    """Logs failed handshakes for the length of the block.

    Args:
        again: Sets up the process's log, which must follow `sys.stderr` to its new place.
    """
    if not _is_standard_error(sys.stderr):
        yield  # somebody else has taken it already
        return
    before = sys.stderr
    straight = os.dup(STANDARD_ERROR)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # a reader that is slow, or gone, must not hold gRPC up
    sys.stderr = os.fdopen(os.dup(straight), "w", buffering=1, errors="backslashreplace")
    os.dup2(writing, STANDARD_ERROR)
    os.close(writing)
    again()
    reader = threading.Thread(target=_Reader(reading, straight).read, name="grpc-log", daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.dup2(straight, STANDARD_ERROR)  # closes the pipe's last writing end
        reader.join(timeout=2.0)
        sys.stderr = before
        if not reader.is_alive():
            os.close(straight)
        again()


def _is_standard_error(stream: object) -> bool:
    try:
        return bool(stream.fileno() == STANDARD_ERROR)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


class _Reader:
    """Reads the pipe until its end."""

    def __init__(self, pipe: int, onward: int) -> None:
        self._pipe = pipe
        self._onward = onward
        self._rest = b""
        self._traced = False
        self._nameless: list[Failure] = []
        self._limit = _Limit()

    def read(self) -> None:
        """Until nobody can write any more."""
        while True:
            quiet = not select.select([self._pipe], [], [], QUIET)[0]
            if quiet:
                self._settle()
                continue
            data = os.read(self._pipe, 64 * 1024)
            if not data:
                self._settle()
                os.close(self._pipe)
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        records = _split(self._rest + data)
        self._rest = records.pop()
        for record in records:
            self._look_at(record)
        if len(self._rest) > LARGEST_RECORD:
            self._settle()

    def _settle(self) -> None:
        """No more lines will come soon: what is here is complete."""
        rest, self._rest = self._rest, b""
        if rest:
            self._look_at(rest)
        self._tell_nameless()
        self._limit.settle()

    def _look_at(self, record: bytes) -> None:
        match read_record(record.decode(errors="replace")):
            case Failure(peer="") as failure if self._traced:
                self._nameless.append(failure)  # the same should come again, with the peer
                if len(self._nameless) > AT_ONCE:
                    self._tell_nameless()
            case Failure() as failure:
                self._nameless = self._nameless[1:]
                self._tell(failure)
            case Noise():
                self._traced = True
            case Foreign():
                with contextlib.suppress(OSError):
                    os.write(self._onward, _shown(record))

    def _tell_nameless(self) -> None:
        nameless, self._nameless = self._nameless, []
        for failure in nameless:
            self._tell(failure)

    def _tell(self, failure: Failure) -> None:
        if self._limit.allows():
            log.warning("handshake_failed", peer=failure.peer or None, reason=failure.reason)


class _Limit:
    """Keeps a flood of bad connections from filling the log."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seen = 0

    def allows(self) -> bool:
        """Counts one, and says whether it may be logged by itself."""
        self.settle()
        self._seen += 1
        return self._seen <= AT_ONCE

    def settle(self) -> None:
        """Logs how many were too many, once the time is over."""
        if time.monotonic() - self._began < WINDOW:
            return
        if self._seen > AT_ONCE:
            log.warning("more_handshakes_failed", count=self._seen - AT_ONCE, seconds=WINDOW)
        self._began, self._seen = time.monotonic(), 0


def _shown(record: bytes) -> bytes:
    """What is passed on. gRPC quotes what strangers send, and that must not steer terminals."""
    text = record.decode(errors="backslashreplace")
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text).encode()


def _split(data: bytes) -> list[bytes]:
    """Cuts before each line that begins a record; the last piece may not be complete."""
    starts = [match.start() for match in re.finditer(rb"^[IWEF]\d{4} \d\d:\d\d:\d\d\.", data, re.M)]
    cuts = sorted({0, *starts, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(cuts)] or [b""]
