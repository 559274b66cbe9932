"""Uploads of logs to the coordinator for their readers, on separate calls so that heartbeats never wait."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import structlog

from runyard.agent.core.model import AttemptKey
from runyard.agent.logs import LogChunk, follow, read_chunk, stream
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectoryError
from runyard.v1 import agent_pb2, agent_pb2_grpc, launch_pb2

AT_ONCE = 32
"""Number of logs that are sent at the same time; further readers wait."""

TURN_WITHIN = 15.0
"""Seconds that a reader waits. After them, the coordinator has already asked it to try again later."""

log = structlog.get_logger("runyard.agent.session.log_uploads")


class LogUploads:
    """Log uploads of one session.

    Args:
        directories: The attempts on this disk.
        is_over: Returns true if an attempt has ended, so that its log does not grow.
        stub: Calls the coordinator.
    """

    def __init__(
        self,
        directories: RunDirectories,
        is_over: Callable[[AttemptKey], bool],
        stub: "agent_pb2_grpc.AgentServiceAsyncStub",
    ) -> None:
        self._directories = directories
        self._is_over = is_over
        self._stub = stub
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    def begin(self, wanted: agent_pb2.SendLogs) -> None:
        """Start an upload in the background."""
        task = asyncio.create_task(self._push(wanted), name=f"logs {wanted.transfer_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finished(self) -> None:
        """Wait until all uploads have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel all uploads."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _push(self, wanted: agent_pb2.SendLogs) -> None:
        try:
            async with asyncio.timeout(TURN_WITHIN):
                await self._turns.acquire()
        except TimeoutError:
            log.warning("too_many_readers", limit=AT_ONCE)
            return
        try:
            await self._stub.PushLogs(self._messages(wanted))
        except grpc.aio.AioRpcError as error:
            # The reader or the coordinator has left: the rest is not needed.
            log.debug("transfer_ended", transfer=wanted.transfer_id, code=error.code().name)
        finally:
            self._turns.release()

    async def _messages(self, wanted: agent_pb2.SendLogs) -> AsyncIterator[agent_pb2.PushLogsRequest]:
        def message(**fields: object) -> agent_pb2.PushLogsRequest:
            return agent_pb2.PushLogsRequest(transfer_id=wanted.transfer_id, **fields)  # type: ignore[arg-type]

        try:
            path = self._path(wanted)
        except LookupError as error:
            yield message(error=str(error.args[0]))
            return
        start = (await asyncio.to_thread(read_chunk, path, wanted.offset, 0)).offset
        # The first message is sent at once, also for a log that is still empty.
        yield message(offset=start)
        async for chunk in self._chunks(wanted, path, start):
            yield message(offset=chunk.offset, data=chunk.data)

    def _path(self, wanted: agent_pb2.SendLogs) -> Path:
        try:
            directory = self._directories.open(AttemptKey(wanted.run_id, wanted.attempt))
        except RunDirectoryError as error:
            raise LookupError(str(error)) from error
        if directory is None:
            raise LookupError(
                f"the log of attempt {wanted.attempt} was cleaned up, or the attempt was never here"
            )
        return directory.stderr if wanted.stream == launch_pb2.LOG_STREAM_STDERR else directory.stdout

    def _chunks(self, wanted: agent_pb2.SendLogs, path: Path, start: int) -> AsyncIterator[LogChunk]:
        if not wanted.follow:
            return stream(path, start, wanted.limit)

        key = AttemptKey(wanted.run_id, wanted.attempt)
        return follow(path, start, lambda: self._is_over(key), wanted.limit)
