"""The worker's output, read by byte offset: during the run, after it, and after the agent's restart."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 64 * 1024
"""Most that is read at once; PushLogs carries no more per message."""

_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class LogChunk:
    """A piece of a log. `offset` is that of its first byte; the next piece begins at `end`."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """Offset of the byte after the last one."""
        return self.offset + len(self.data)


def read_chunk(path: Path, offset: int, limit: int = CHUNK_BYTES) -> LogChunk:
    """Reads one piece of a log.

    Args:
        path: The file. One that is missing reads as empty: the worker may not have started yet.
        offset: Of the first byte; negative counts from the end. Beyond the end there is nothing.
        limit: Most bytes to read; never more than `CHUNK_BYTES` are.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return LogChunk(max(offset, 0), b"")
    try:
        start = offset if offset >= 0 else max(0, os.fstat(descriptor).st_size + offset)
        return LogChunk(start, os.pread(descriptor, min(limit, CHUNK_BYTES), start))
    finally:
        os.close(descriptor)


def read_tail(path: Path, limit: int) -> str:
    """The last lines of a log as text of at most `limit` bytes in UTF-8; what is not UTF-8 is replaced."""
    chunk = read_chunk(path, -limit, limit)
    text = chunk.data.decode(errors="replace").encode()[-limit:].decode(errors="ignore")
    is_cut = chunk.offset > 0
    return text.partition("\n")[2] or text if is_cut else text


async def stream(path: Path, offset: int, limit: int = 0) -> AsyncIterator[LogChunk]:
    """Gives what the log holds now, piece by piece.

    Args:
        path: The file.
        offset: Of the first byte; negative counts from the end.
        limit: Most bytes in all; 0 means no limit.
    """
    left = limit or None
    while True:
        wanted = CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)
        chunk = await asyncio.to_thread(read_chunk, path, offset, wanted)
        if not chunk.data:
            return
        yield chunk
        offset = chunk.end
        if left is not None:
            left -= len(chunk.data)
            if left == 0:
                return


async def follow(
    path: Path, offset: int, is_over: Callable[[], bool], limit: int = 0
) -> AsyncIterator[LogChunk]:
    """As `stream`, but goes on until the attempt is over and all that it wrote was given.

    Args:
        path: The file.
        offset: Of the first byte; negative counts from the end as it is now.
        is_over: Whether the attempt is over; asked between reads.
        limit: Most bytes in all; 0 means no limit.
    """
    start = (await asyncio.to_thread(read_chunk, path, offset, 0)).offset
    position = start
    while True:
        over = is_over()  # asked before the last look, so that nothing written in between is missed
        async for chunk in stream(path, position, limit and limit - (position - start)):
            position = chunk.end
            yield chunk
        if over or (limit and position - start >= limit):
            return
        await asyncio.sleep(_POLL_SECONDS)
