"""The agent's client of the fork server: starts it, requests shims, and restarts it if it dies."""

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from runyard.agent.supervisor.forkserver import MAX_DATAGRAM_BYTES
from runyard.agent.supervisor.procfs import ProcessIdentity

REPLY_SECONDS = 10.0
"""How long a request for a shim may go unanswered; a fork takes milliseconds, so this means trouble."""

_RESTART_PAUSE_SECONDS = (0.05, 5.0)
"""First and longest pause before a fork server that died is restarted; doubled each time, jittered."""

_STEADY_SECONDS = 60.0
"""A fork server that lived this long was sound: the pause starts at its minimum again."""

log = structlog.get_logger("runyard.agent.drivers")


OnWarm = Callable[[dict[str, Any] | None], None]
"""Called with each message about a warm server; with None when all of them are gone at once."""


class NoShim(Exception):
    """The fork server died, or could not fork. The run directory shows if a shim exists."""


class ForkServerClient:
    """Asks a fork server for shims.

    Args:
        log_path: File to which the fork server and its shims write what goes wrong.
        on_running: Called with the path of a run directory when its worker's program has begun.
        on_warm: Called with what `runyard.agent.supervisor.forkserver` says of warm servers.
    """

    def __init__(
        self, log_path: Path, on_running: Callable[[Path], None], on_warm: OnWarm = lambda message: None
    ) -> None:
        self._log_path = log_path
        self._on_running = on_running
        self._on_warm = on_warm
        self._server: _Server | None = None
        self._opening = asyncio.Lock()
        self._pause = _RESTART_PAUSE_SECONDS[0]
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """Process ID of the fork server; None while there is none."""
        return self._server.process.pid if self._server else None

    async def open(self) -> None:
        """Start the fork server unless it runs, after a pause if one died lately.

        Raises:
            OSError: It cannot be started.
        """
        async with self._opening:
            if self._server is not None:
                return
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()) * random.uniform(0.5, 1.0))
            self._server = _Server(self._log_path, self._on_running, self._on_warm, self._on_death)
            log.debug("fork_server_started", pid=self._server.process.pid)

    async def start_shim(self, path: Path, warm: str | None = None) -> ProcessIdentity:
        """Fork a shim for a run directory. Safe to repeat: only one shim will ever start the worker.

        Args:
            path: The run directory.
            warm: Name of the warm server that is to do it; without that one it is done all the same.

        Raises:
            NoShim: No shim, or none that is known of.
        """
        try:
            await self.open()
            assert self._server is not None
            return await asyncio.wait_for(self._server.request_shim(path, warm), REPLY_SECONDS)
        except OSError as error:
            raise NoShim(f"the fork server cannot be reached: {error}") from error

    async def open_warm(self, name: str, home: Path) -> None:
        """Start a warm server for the plan in its home; `on_warm` reports its state.

        Raises:
            OSError: The fork server cannot be reached.
        """
        await self.open()
        assert self._server is not None
        self._server.send({"open": name, "home": str(home)})

    def close_warm(self, name: str) -> None:
        """Let a warm server go, if it is there."""
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.send({"close": name})

    def close(self) -> None:
        """Leave the fork server, which stays until its last child is gone."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _on_death(self, server: "_Server") -> None:
        log.warning("fork_server_died", pid=server.process.pid, returncode=server.process.returncode)
        first, longest = _RESTART_PAUSE_SECONDS
        was_steady = time.monotonic() - server.started_at > _STEADY_SECONDS
        self._pause = first if was_steady else min(self._pause * 2, longest)
        self._not_before = time.monotonic() + self._pause
        self._server = None
        self._on_warm(None)


class _Server:
    """One fork server process."""

    def __init__(
        self,
        log_path: Path,
        on_running: Callable[[Path], None],
        on_warm: OnWarm,
        on_death: Callable[["_Server"], None],
    ) -> None:
        self._on_running = on_running
        self._on_warm = on_warm
        self._on_death = on_death
        self._replies: dict[str, asyncio.Future[ProcessIdentity]] = {}
        self.started_at = time.monotonic()
        self._socket, its_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with (
            its_socket,
            open(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log_file,
        ):
            # In a session of its own: a ^C in the agent's terminal is not meant for the runs.
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-B",
                    "-m",
                    "runyard.agent.supervisor.forkserver",
                    str(its_socket.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[its_socket.fileno()],
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self.process.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.fileno(), self._on_datagram)
        loop.add_reader(self._pidfd, self._on_exit)

    def send(self, message: dict[str, Any]) -> None:
        """Send a request that has no reply."""
        self._socket.send(json.dumps(message).encode())

    def request_shim(self, path: Path, warm: str | None) -> asyncio.Future[ProcessIdentity]:
        """Sends the request; the future gives the shim or raises `NoShim`."""
        self.send({"start": str(path)} if warm is None else {"start": str(path), "warm": warm})
        reply = asyncio.get_running_loop().create_future()
        self._replies[str(path)] = reply
        return reply

    def close(self) -> None:
        """Let go of the process, which then ends when its children have."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        loop.remove_reader(self._pidfd)
        self._socket.close()
        os.close(self._pidfd)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(NoShim("the fork server is gone"))

    def _on_datagram(self) -> None:
        try:
            datagram = self._socket.recv(MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:
            datagram = b""
        if not datagram:
            # The server is dying; its pidfd shows the end. Until then the socket would stay readable.
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            return
        message = json.loads(datagram)
        if "warm" in message:
            self._on_warm(message)
            return
        if "running" in message:
            self._on_running(Path(message["running"]))
            return
        reply = self._replies.pop(message["shim"], None)
        if reply is None or reply.done():
            return
        if "error" in message:
            reply.set_exception(NoShim(message["error"]))
        else:
            reply.set_result(ProcessIdentity(message["pid"], message["start_time"]))

    def _on_exit(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=0)
        self.close()
        self._on_death(self)
