"""Sends logs to readers behind the coordinator, on calls of their own, so that heartbeats never wait."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import structlog

from runyard.agent.core.model import AttemptKey, Finished
from runyard.agent.logs import LogChunk, follow, read_chunk, stream
from runyard.agent.runtime import Runtime
from runyard.agent.supervisor.rundir import RunDirectoryError
from runyard.v1 import agent_pb2, agent_pb2_grpc, launch_pb2

AT_ONCE = 32
"""Logs that are sent at the same time; further readers wait for their turn."""

TURN_WITHIN = 15.0
"""Seconds that a reader waits for its turn; then the coordinator has told it to come back."""

log = structlog.get_logger("runyard.agent.session.log_uploads")


class Transfers:
    """The logs that are on their way in one session."""

    def __init__(self, runtime: Runtime, stub: "agent_pb2_grpc.AgentServiceAsyncStub") -> None:
        self._runtime = runtime
        self._stub = stub
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    def begin(self, wanted: agent_pb2.SendLogs) -> None:
        """Sends what is asked for, beside everything else."""
        task = asyncio.create_task(self._push(wanted), name=f"logs {wanted.transfer_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finished(self) -> None:
        """Returns when all transfers are over."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Ends all transfers."""
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
            # The reader has left, or the coordinator: either way nobody misses the rest.
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
        # The first message comes at once, also for a log that is still empty.
        yield message(offset=start)
        async for chunk in self._chunks(wanted, path, start):
            yield message(offset=chunk.offset, data=chunk.data)

    def _path(self, wanted: agent_pb2.SendLogs) -> Path:
        try:
            directory = self._runtime.directories.open(AttemptKey(wanted.run_id, wanted.attempt))
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

        def is_over() -> bool:
            held = self._runtime.holdings.get(AttemptKey(wanted.run_id, wanted.attempt))
            return held is None or isinstance(held.phase, Finished)

        return follow(path, start, is_over, wanted.limit)
