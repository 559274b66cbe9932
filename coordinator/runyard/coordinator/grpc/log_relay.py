"""ReadLogs and PushLogs: relays a log from the agent that has the file to a reader."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable

from runyard.coordinator.core.effects import Send
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.model import Ready, Run
from runyard.coordinator.grpc.errors import NotFound, Unavailable
from runyard.coordinator.runtime.runtime import Runtime
from runyard.v1 import agent_pb2, launch_pb2

PIECES = 16
"""Maximum number of pieces (of at most 64 KiB) that wait for a slow reader; then the agent has to wait."""

FIRST_PIECE = 15.0
"""Seconds for the agent to send the first piece; a live agent answers at once."""

STATUS_WITHIN = 5.0
"""Seconds after the end of a followed log for the attempt's final status, which comes on another stream."""


class Transfer:
    """Transfer of one log from an agent to a reader."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self._pieces: asyncio.Queue[agent_pb2.PushLogsRequest | None] = asyncio.Queue(PIECES)
        self._reader_left = asyncio.Event()
        self.begun = asyncio.Event()

    async def put(self, piece: agent_pb2.PushLogsRequest | None) -> bool:
        """Pass on a piece, or None at the end. Return False once the reader has left."""
        self.begun.set()
        putting = asyncio.create_task(self._pieces.put(piece))
        leaving = asyncio.create_task(self._reader_left.wait())
        await asyncio.wait({putting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()
        leaving.cancel()
        return not self._reader_left.is_set()

    async def pieces(self) -> AsyncIterator[agent_pb2.PushLogsRequest]:
        """Yield the agent's pieces until the end."""
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def leave(self) -> None:
        """Make `put` return False: the reader has left."""
        self._reader_left.set()


class LogRelay:
    """Relay between agents and readers. Agents accept no connections, so a command makes them push a log."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._transfers: dict[str, Transfer] = {}

    async def read(
        self, request: launch_pb2.ReadLogsRequest, run: Run
    ) -> AsyncIterator[launch_pb2.ReadLogsResponse]:
        """Yield a log from the node that has it.

        Raises:
            InvalidField: The request names no stream.
            NotFound: The attempt never reached a node, or its log is gone.
            Unavailable: The node is not connected, or a followed log broke off.
        """
        if request.stream not in (launch_pb2.LOG_STREAM_STDOUT, launch_pb2.LOG_STREAM_STDERR):
            raise InvalidField("stream", "is not set; give STDOUT or STDERR")
        attempt = request.attempt if request.HasField("attempt") else run.attempt
        node_id = await self._node_of(run, attempt)
        transfer_id, transfer = uuid.uuid4().hex, Transfer(node_id)
        sent = 0
        self._transfers[transfer_id] = transfer
        try:
            self._request(node_id, transfer_id, request, attempt)
            async with asyncio.timeout(FIRST_PIECE):
                await transfer.begun.wait()
            async for piece in transfer.pieces():
                if piece.error:
                    raise NotFound(f"node {node_id}: {piece.error}")
                yield launch_pb2.ReadLogsResponse(offset=piece.offset, data=piece.data)
                sent += len(piece.data)
            if request.follow and not 0 < request.limit <= sent:
                await self._require_finished(request.run_id, attempt, node_id)
        except TimeoutError:
            raise Unavailable(f"node {node_id} did not send the log within {FIRST_PIECE:g} s") from None
        finally:
            del self._transfers[transfer_id]
            transfer.leave()

    async def receive(
        self, pieces: AsyncIterator[agent_pb2.PushLogsRequest], may_speak_for: Callable[[str], bool]
    ) -> None:
        """Receive the pieces that an agent pushes.

        Args:
            pieces: The messages.
            may_speak_for: Returns True if the caller is the agent of the node with that ID.

        Raises:
            NotFound: No reader waits for this transfer (any more), or it belongs to another node.
        """
        transfer: Transfer | None = None
        try:
            async for piece in pieces:
                transfer = transfer or self._find_transfer(piece.transfer_id, may_speak_for)
                if transfer is None or not await transfer.put(piece):
                    raise NotFound("no reader waits for this log any more")
        finally:
            if transfer is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await transfer.put(None)

    def _find_transfer(self, transfer_id: str, may_speak_for: Callable[[str], bool]) -> Transfer | None:
        transfer = self._transfers.get(transfer_id)
        return transfer if transfer is not None and may_speak_for(transfer.node_id) else None

    async def _node_of(self, run: Run, attempt: int) -> str:
        if attempt == run.attempt and run.place is not None:
            return run.place.node
        rows = await self._runtime.in_writer(lambda: self._runtime.store.events(run.run_id))
        nodes = [row["node"] for row in rows if row["attempt"] == attempt and row["node"]]
        if not nodes:
            raise NotFound(f"attempt {attempt} of run {run.run_id} never reached a node, so it has no log")
        return str(nodes[-1])

    async def _require_finished(self, run_id: str, attempt: int, node_id: str) -> None:
        """Raise `Unavailable` if the attempt still runs: a lost connection looks like the end of the log."""
        with self._runtime.watchers.watching() as watcher:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_WITHIN):
                    while self._is_live(run_id, attempt):
                        await watcher.next()
            if self._is_live(run_id, attempt):
                raise Unavailable(f"the log from node {node_id} broke off; read on from the last offset")

    def _is_live(self, run_id: str, attempt: int) -> bool:
        run = self._runtime.fleet.runs.get(run_id)
        return run is not None and run.attempt == attempt and run.is_live

    def _request(
        self, node_id: str, transfer_id: str, request: launch_pb2.ReadLogsRequest, attempt: int
    ) -> None:
        node = self._runtime.fleet.nodes.get(node_id)
        if node is None or not isinstance(node.liveness, Ready):
            raise Unavailable(f"node {node_id} is not connected; its logs can be read when it is back")
        command = agent_pb2.SendLogs(
            transfer_id=transfer_id,
            run_id=request.run_id,
            attempt=attempt,
            stream=request.stream,
            offset=request.offset,
            limit=request.limit,
            follow=request.follow,
        )
        message = agent_pb2.SessionResponse(send_logs=command)
        self._runtime.execute(Send(node_id, node.liveness.session, message))
