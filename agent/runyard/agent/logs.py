"""Reading of workers' output by byte offset, during and after the run."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 64 * 1024
"""Largest number of bytes in one read, and in one message of PushLogs."""

_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class LogChunk:
    """Part of a log. `offset` is the position of its first byte; the next part begins at `end`."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """Offset of the byte after the last one."""
        return self.offset + len(self.data)


def read_chunk(path: Path, offset: int, limit: int = CHUNK_BYTES) -> LogChunk:
    """Read one part of a log.

    Args:
        path: The file. A missing one counts as empty: the worker may not have started yet.
        offset: Position of the first byte; negative counts from the end.
        limit: Largest number of bytes; at most `CHUNK_BYTES` are read.
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
    """Return the last lines of a log, at most `limit` bytes in UTF-8. Invalid bytes are replaced."""
    chunk = read_chunk(path, -limit, limit)
    text = chunk.data.decode(errors="replace").encode()[-limit:].decode(errors="ignore")
    is_cut = chunk.offset > 0
    return text.partition("\n")[2] or text if is_cut else text


async def stream(path: Path, offset: int, limit: int = 0) -> AsyncIterator[LogChunk]:
    """Yield the current content of a log in parts.

    Args:
        path: The file.
        offset: Position of the first byte; negative counts from the end.
        limit: Largest number of bytes in total; 0 means no limit.
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
    """Yield a log in parts until the attempt has ended and all of its output was yielded.

    Args:
        path: The file.
        offset: Position of the first byte; negative counts from the current end.
        is_over: Returns true if the attempt has ended; called between reads.
        limit: Largest number of bytes in total; 0 means no limit.
    """
    start = (await asyncio.to_thread(read_chunk, path, offset, 0)).offset
    position = start
    while True:
        over = is_over()  # checked before the last read, so that no output in between is missed
        async for chunk in stream(path, position, limit and limit - (position - start)):
            position = chunk.end
            yield chunk
        if over or (limit and position - start >= limit):
            return
        await asyncio.sleep(_POLL_SECONDS)
