"""The warm servers of one fork server: its children, asked for shims in its name. Standard library only."""

import contextlib
import json
import os
import signal
import socket
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from runyard.agent.supervisor import shim
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.warm import boot
from runyard.agent.supervisor.warm.commandline import ROOM_BYTES, ROOM_NAME
from runyard.agent.supervisor.warm.plan import WarmPlan

ANSWER_SECONDS = 5.0
"""How long a warm server may take to fork; it is killed then, and its runs start cold."""

_END_SECONDS = 3.0
"""How long a warm server that was let go may take to end."""

_MAX_DATAGRAM_BYTES = 16384


@dataclass
class WarmChild:
    """One warm server.

    Attributes:
        name: By which the agent asks for it.
        pid: Of the process, which is its own group.
        socket: Requests and answers; see `runyard.agent.supervisor.warm.server`.
        asked: Paths of the run directories that it was asked to fork shims for, with the time of that.
    """

    name: str
    pid: int
    socket: socket.socket
    asked: dict[str, float] = field(default_factory=dict)
    _let_go_at: float | None = None

    def ask(self, path: str) -> bool:
        """Ask for a shim; false if the server cannot be reached."""
        try:
            self.socket.send(json.dumps({"start": path}).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return False
        self.asked[path] = time.monotonic()
        return True

    def hear(self) -> dict[str, Any] | None:
        """Take one message; None if there will be no more."""
        try:
            datagram = self.socket.recv(_MAX_DATAGRAM_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            return None
        message: dict[str, Any] | None = json.loads(datagram) if datagram else None
        if message is not None:
            self.asked.pop(message.get("shim") or message.get("refused") or "", None)
        return message

    def let_go(self) -> None:
        """Let the server end when it has answered all requests."""
        if self._let_go_at is None:
            self._let_go_at = time.monotonic()
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def seconds_left(self) -> float | None:
        """Seconds until it is overdue with an answer or with its end; None if nothing is expected of it."""
        due = [at + ANSWER_SECONDS for at in self.asked.values()]
        if self._let_go_at is not None:
            due.append(self._let_go_at + _END_SECONDS)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def kill(self) -> None:
        """Ends it, with whatever it started while it imported; its shims are in sessions of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def start(name: str, home: Path, hints: socket.socket) -> WarmChild:
    """Start a warm server.

    Args:
        name: Of the server.
        home: Directory with its `plan`; what it and its shims complain of goes to the file `log` there.
        hints: The end of the socket to the agent on which its shims report that a worker has begun.

    Raises:
        OSError: It cannot be started.
        UnreadableRecord: The plan is damaged.
    """
    plan = WarmPlan.decode((home / "plan").read_bytes())
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        pid = os.fork()
        if pid == 0:
            _become_server(plan, home, its, hints)
    return WarmChild(name, pid, ours)


def _become_server(plan: WarmPlan, home: Path, requests: socket.socket, hints: socket.socket) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        log = os.open(home / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
            os.dup2(descriptor, number)
        shim.restore_signals()
        shim.restore_oom_score()
        if plan.cwd:
            os.chdir(plan.cwd)
        for own in (requests, hints):
            own.set_inheritable(True)
        arguments = [boot.__file__, str(requests.fileno()), str(hints.fileno()), str(home), "-" * ROOM_BYTES]
        program = shim.find_executable(SpecRecord([plan.python], plan.env, plan.cwd))
        os.execve(program, [plan.python, *arguments], {**plan.env, ROOM_NAME: "-" * ROOM_BYTES})
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(127)
