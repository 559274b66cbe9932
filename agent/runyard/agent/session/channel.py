"""Channels to the coordinator: the one in use, and its replacement, which is ready before the switch."""

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

CHECK_EVERY: Final = 1.0
"""Seconds between two checks of the certificate files."""

READY_WITHIN: Final = 20.0
"""Seconds for the next channel to become ready before it is replaced by another. Less than the minute for
which a coordinator keeps a connection that it wants replaced."""

LAST_WORK_WITHIN: Final = 50.0
"""Seconds for pending calls on a channel to end after it was replaced."""

log = structlog.get_logger("runyard.agent.session.session")


@dataclass(frozen=True, eq=False)
class CoordinatorChannel:
    """Channel with the certificates that it was opened with; None for plain text."""

    channel: grpc.aio.Channel
    tls: TlsMaterial | None


class Channels:
    """Opens channels to the coordinator, with the latest certificates."""

    def __init__(self, settings: AgentSettings) -> None:
        """Read the certificates.

        Args:
            settings: Name the coordinator and the certificate files.

        Raises:
            InvalidTlsFiles: They cannot be used.
        """
        self._address = settings.coordinator
        files = settings.tls_files()
        self._watched = None if files is None else WatchedTls(files, _log_problem)
        self._next: CoordinatorChannel | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    def take(self) -> CoordinatorChannel:
        """Return the channel for one session: the prepared one, or a new one. The caller closes it."""
        channel, self._next = self._next or self._open(), None
        return channel

    def retire(self, last_work: Awaitable[None], closing: contextlib.AsyncExitStack) -> None:
        """Close a replaced channel when its pending calls have ended.

        Args:
            last_work: Returns when no call is pending.
            closing: Closes the channel.
        """
        task = asyncio.create_task(self._retire(last_work, closing))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def replaced(self, channel: CoordinatorChannel) -> str:
        """Wait until a replacement is needed and ready, and return the reason.

        Reasons are changed certificates, and a coordinator that wants a new connection, as it does from time
        to time: it then accepts no new calls on the old one, and soon ends the pending ones.
        """
        while True:
            reason = await self._reason_to_replace(channel)
            replacement = self._open()
            try:
                async with asyncio.timeout(READY_WITHIN):
                    await replacement.channel.channel_ready()
            except TimeoutError:
                await replacement.channel.close()
                log.warning("no_second_connection", reason=reason, coordinator=self._address)
            except asyncio.CancelledError:
                await replacement.channel.close()
                raise
            else:
                self._next = replacement
                return reason

    async def close(self) -> None:
        """Close the remaining channels."""
        channel, self._next = self._next, None
        if channel is not None:
            await channel.channel.close()
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _retire(self, last_work: Awaitable[None], closing: contextlib.AsyncExitStack) -> None:
        async with closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(last_work, LAST_WORK_WITHIN)

    async def _reason_to_replace(self, channel: CoordinatorChannel) -> str:
        while True:
            if self._watched is not None and await asyncio.to_thread(self._watched.current) != channel.tls:
                return "the certificates have changed"
            state = channel.channel.get_state()
            if state is not grpc.ChannelConnectivity.READY:
                return "the coordinator requests a new connection"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY):
                    await channel.channel.wait_for_state_change(state)

    def _open(self) -> CoordinatorChannel:
        material = None if self._watched is None else self._watched.current()
        return CoordinatorChannel(open_aio_channel(self._address, material), material)


def _log_problem(problem: str) -> None:
    log.error("certificates_not_renewed", problem=problem)
