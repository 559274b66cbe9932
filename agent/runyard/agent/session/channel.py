"""The line to the coordinator: a channel, and the one after it, which is ready before that is given up."""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
import structlog

from runyard.agent.config.agent import AgentSettings
from runyard.common.transport.channel import open_aio_channel
from runyard.common.transport.tls import TlsMaterial, WatchedTls

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the files with the certificates."""

READY_WITHIN: Final = 20.0
"""Seconds for the next channel to be ready; then it is given up, and made anew. Less than the minute for
which a coordinator that wants a connection to be made anew keeps the old one."""

LAST_WORK_WITHIN: Final = 50.0
"""Seconds for what was begun on a channel to end there after another one has taken its place."""

log = structlog.get_logger("runyard.agent.session.session")


@dataclass(frozen=True, eq=False)
class Line:
    """A channel, and the certificates that it was opened with."""

    channel: grpc.aio.Channel
    tls: TlsMaterial | None


class Lines:
    """Opens lines to the coordinator, always with the newest certificates."""

    def __init__(self, settings: AgentSettings) -> None:
        """Reads the certificates.

        Args:
            settings: Where the coordinator is, and which files hold the certificates.

        Raises:
            InvalidTlsFiles: They cannot be used.
        """
        self._address = settings.coordinator
        files = settings.tls_files()
        self._watched = None if files is None else WatchedTls(files, _complain)
        self._next: Line | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    def take(self) -> Line:
        """The line for one session: the one that is ready, or a new one. Whoever takes it closes it."""
        line, self._next = self._next or self._open(), None
        return line

    def leave(self, last_work: Awaitable[None], closing: contextlib.AsyncExitStack) -> None:
        """Lets what was begun on a line that was replaced end there, and then closes it.

        Args:
            last_work: Done when nothing is left to do on the line.
            closing: Closes the line.
        """
        task = asyncio.create_task(self._leave(last_work, closing))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def replaced(self, line: Line) -> str:
        """Returns, with the reason, when another line is to be used instead, and that one is ready.

        The certificates have changed, or the coordinator wants the connection to be made anew, as it does
        from time to time: it then takes no new calls on it, and soon ends those that it has.
        """
        while True:
            reason = await self._reason_to_replace(line)
            coming = self._open()
            try:
                async with asyncio.timeout(READY_WITHIN):
                    await coming.channel.channel_ready()
            except TimeoutError:
                await coming.channel.close()
                log.warning("no_second_connection", reason=reason, coordinator=self._address)
            except asyncio.CancelledError:
                await coming.channel.close()
                raise
            else:
                self._next = coming
                return reason

    async def close(self) -> None:
        """Closes the lines that are left."""
        line, self._next = self._next, None
        if line is not None:
            await line.channel.close()
        for task in list(self._leaving):
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _leave(self, last_work: Awaitable[None], closing: contextlib.AsyncExitStack) -> None:
        async with closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(last_work, LAST_WORK_WITHIN)

    async def _reason_to_replace(self, line: Line) -> str:
        while True:
            if self._watched is not None and await asyncio.to_thread(self._watched.current) != line.tls:
                return "the certificates have changed"
            state = line.channel.get_state()
            if state is not grpc.ChannelConnectivity.READY:
                return "the coordinator wants the connection to be made anew"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await line.channel.wait_for_state_change(state)

    def _open(self) -> Line:
        material = None if self._watched is None else self._watched.current()
        return Line(open_aio_channel(self._address, material), material)


def _complain(problem: str) -> None:
    log.error("certificates_not_renewed", problem=problem)
