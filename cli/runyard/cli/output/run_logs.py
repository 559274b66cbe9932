"""Reads logs for the command line: the last lines, and what comes after, over lost connections too."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runyard.client.client import Client
from runyard.client.errors import CoordinatorUnreachable, ResourceExhausted
from runyard.v1 import launch_pb2

# How much is read at first to find the last lines; four times as much each time that it does not suffice.
_FIRST_WINDOW_BYTES = 64 * 1024
_LONG_LINE_BYTES = 256

_LONGEST_OUTAGE_SECONDS = 120.0
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class AttemptLog:
    """One output stream of one attempt."""

    client: Client
    run_id: str
    attempt: int
    stream: launch_pb2.LogStream.ValueType

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """The content from an offset on, as it is now."""
        for piece in self._pieces(offset):
            yield piece.data

    def last_lines(self, count: int) -> tuple[bytes, int]:
        """The last lines, and the offset of the first byte after them."""
        window = max(_FIRST_WINDOW_BYTES, count * _LONG_LINE_BYTES)
        while True:
            pieces = list(self._pieces(-window))
            if not pieces:
                return b"", 0
            data = b"".join(piece.data for piece in pieces)
            lines = data.splitlines(keepends=True)
            if len(lines) > count or pieces[0].offset == 0:
                return b"".join(lines[-count:] if count else []), pieces[0].offset + len(data)
            window *= 4

    def follow(self, offset: int, say: Callable[[str], None]) -> Iterator[bytes]:
        """The content from an offset on, followed until the attempt is over.

        Args:
            offset: Byte to start at.
            say: Called when the connection is lost; the log then continues where it stopped.

        Raises:
            CoordinatorUnreachable: The outage lasts too long.
        """
        lost_at: float | None = None
        while True:
            try:
                for piece in self._pieces(offset, follow=True):
                    lost_at = None
                    offset = piece.offset + len(piece.data)
                    yield piece.data
                return
            except (CoordinatorUnreachable, ResourceExhausted) as error:
                now = time.monotonic()
                if lost_at is None:
                    lost_at = now
                    say(f"{error}; trying again")
                elif now - lost_at > _LONGEST_OUTAGE_SECONDS:
                    raise
                time.sleep(random.uniform(0.2, _LONGEST_PAUSE_SECONDS))

    def _pieces(self, offset: int, follow: bool = False) -> Iterator[launch_pb2.ReadLogsResponse]:
        return self.client.read_logs(
            self.run_id, stream=self.stream, attempt=self.attempt, offset=offset, follow=follow
        )
