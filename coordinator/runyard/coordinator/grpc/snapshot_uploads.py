"""Uploads of job snapshots: in pieces, and few at a time, so that they cannot fill the memory."""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from typing import Final
from weakref import WeakValueDictionary

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.grpc.errors import TooLarge, Unavailable
from runyard.coordinator.runtime.runtime import Runtime
from runyard.v1 import launch_pb2

MAX_PIECE: Final = 1024 * 1024
"""Maximum bytes of a piece."""

MAX_SNAPSHOT: Final = 32 * 1024 * 1024
"""Maximum bytes of a compressed job snapshot. A job of two ops has 30 kB before compression."""

MAX_SNAPSHOT_PLAIN: Final = 512 * 1024 * 1024
"""Maximum bytes of a job snapshot after decompression."""

AT_ONCE: Final = 4
"""Maximum number of concurrent uploads of all callers. Each caller has one at a time; others wait."""

WITHIN: Final = 60.0
"""Seconds for an upload, so that a silent caller does not block others."""

Messages = AsyncIterator[launch_pb2.StoreSnapshotRequest]


class SnapshotUploads:
    """Receives job snapshots and stores them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._places = asyncio.Semaphore(AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def receive(self, messages: Messages, caller: str) -> None:
        """Receive one snapshot; return when it is durable.

        Args:
            messages: The header, then the pieces.
            caller: Identity of the caller.

        Raises:
            InvalidField: The content is damaged, or the messages are out of order.
            TooLarge: It exceeds a limit.
            Unavailable: It did not arrive in time.
            StoreFull: The disk is full.
        """
        turn = self._turns.setdefault(caller, asyncio.Lock())
        async with turn, self._places:
            try:
                async with asyncio.timeout(WITHIN):
                    header, data = await _collected(messages)
            except TimeoutError:
                raise Unavailable(
                    f"the job snapshot did not arrive within {WITHIN:g} s; send it again"
                ) from None
            # Not in the writer's thread: all launches would wait for it.
            await asyncio.to_thread(check_content, data, header.sha256)
            store = self._runtime.store
            await self._runtime.in_writer(
                lambda: store.put_snapshot(header.job_snapshot_id, header.sha256, data)
            )


async def _collected(messages: Messages) -> tuple[launch_pb2.SnapshotHeader, bytes]:
    first = await anext(aiter(messages), None)
    if first is None or not first.HasField("header"):
        raise InvalidField("header", "must be the first message of a snapshot, and no other")
    check_snapshot_id("header.job_snapshot_id", first.header.job_snapshot_id)
    data = bytearray()
    async for message in messages:
        if not message.HasField("piece"):
            raise InvalidField("piece", "must be in every message after the first")
        if len(message.piece) > MAX_PIECE:
            raise TooLarge(
                f"piece has {len(message.piece)} bytes, more than the {MAX_PIECE} allowed; send smaller ones"
            )
        data += message.piece
        if len(data) > MAX_SNAPSHOT:
            raise TooLarge(
                f"the compressed job snapshot has more than the {MAX_SNAPSHOT} bytes that are allowed"
            )
    return first.header, bytes(data)


def check_snapshot_id(field: str, snapshot_id: str) -> None:
    """Check the ID of a job snapshot.

    Raises:
        InvalidField: It is empty or too long.
    """
    if not snapshot_id:
        raise InvalidField(field, "is empty; name the job snapshot as the launch does")
    if len(snapshot_id) > 64:
        raise InvalidField(field, "is longer than 64 characters")


def check_content(data: bytes, sha256: str) -> None:
    """Check that a snapshot is complete and not too large.

    Args:
        data: The compressed snapshot.
        sha256: SHA-256 of the uncompressed snapshot, hexadecimal.

    Raises:
        TooLarge: It exceeds `MAX_SNAPSHOT_PLAIN` after decompression.
        InvalidField: It is damaged.
    """
    inflater = zlib.decompressobj()
    digest, size, rest = hashlib.sha256(), 0, data
    try:
        while rest and not inflater.eof:
            piece = inflater.decompress(rest, 1 << 20)
            digest.update(piece)
            size += len(piece)
            if size > MAX_SNAPSHOT_PLAIN:
                raise TooLarge(f"the job snapshot decompresses to more than {MAX_SNAPSHOT_PLAIN} bytes")
            rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise InvalidField("piece", f"all together are not zlib data ({error}); send it again") from error
    if not inflater.eof or digest.hexdigest() != sha256:
        raise InvalidField("header.sha256", "does not match the pieces: they arrived damaged; send it again")
