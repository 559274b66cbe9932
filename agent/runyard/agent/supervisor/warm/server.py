"""A warm server: answers the fork server's requests for shims with forks of itself.

Started as `python boot.py REQUESTS HINTS HOME ROOM`. REQUESTS is a socket of type SOCK_SEQPACKET whose other
end is the fork server's; HINTS is the fork server's own end of the socket to the agent, for the shims; HOME
holds the `plan`; ROOM only takes up room in the command line. Each datagram is one JSON object:

    {"ready": facts}                     from the server: it will fork
    {"unusable": reason}                 from the server: it will not, and ends
    {"start": path}                      to the server: fork a shim for this run directory
    {"shim": path, "pid": n}             from the server: the shim lives
    {"refused": path, "reason": text}    from the server: no fork, and there will be none any more
    {"shim": path, "error": text}        from the server: no fork this time

The server ends when the fork server closes its end. Its forks go on: when it is gone, the fork server becomes
their parent, as it is what reaps everything that has none.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from runyard.agent.supervisor import procfs, shim
from runyard.agent.supervisor.records import UnreadableRecord
from runyard.agent.supervisor.warm import commandline, fork_safety
from runyard.agent.supervisor.warm.become_worker import Rebirth
from runyard.agent.supervisor.warm.change_detection import Memory, Witness
from runyard.agent.supervisor.warm.plan import WarmPlan
from runyard.agent.supervisor.warm.preload import (
    NotPreloaded,
    import_modules,
    load_code_location,
    rehearse_run,
)
from runyard.agent.supervisor.warm.randomness import Generators

MAX_DATAGRAM_BYTES = 16384
"""As in the fork server."""


class Server:
    """Forks shims until it is told to end, or finds that it must not fork any more.

    Args:
        requests: The socket to the fork server.
        hints: The socket on which shims tell the agent that a worker has begun.
        rebirth: Makes the program of a worker of its fork.
        memory: What was imported, to compare with.
    """

    def __init__(
        self, requests: socket.socket, hints: socket.socket, rebirth: Rebirth, memory: Memory
    ) -> None:
        self._requests = requests
        self._hints = hints
        self._rebirth = rebirth
        self._memory = memory

    def serve(self) -> None:
        """Returns when the fork server has let go, or after a refusal."""
        while datagram := self._requests.recv(MAX_DATAGRAM_BYTES):
            path = json.loads(datagram)["start"]
            reason = fork_safety.threads() or self._memory.change()
            if reason is not None:
                tell(self._requests, {"refused": path, "reason": reason})
                return
            self._start_shim(path)

    def _start_shim(self, path: str) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            tell(self._requests, {"shim": path, "error": f"cannot fork: {error.strerror}"})
            return
        if pid == 0:
            self._become_shim(Path(path))
        tell(self._requests, {"shim": path, "pid": pid})

    def _become_shim(self, path: Path) -> NoReturn:
        code = os.EX_SOFTWARE
        try:
            self._requests.close()
            code = shim.run(path, lambda: self._say_running(path), self._rebirth)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _say_running(self, path: Path) -> None:
        tell(self._hints, {"running": str(path)})
        self._hints.close()


def tell(peer: socket.socket, message: dict[str, Any]) -> None:
    """Sends a datagram, unless the peer has gone or does not read: nothing depends on one alone."""
    try:
        peer.send(json.dumps(message).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return


def main() -> None:
    """Reads the plan, imports, checks itself, and serves."""
    requests, hints = (socket.socket(fileno=int(argument)) for argument in sys.argv[1:3])
    home = Path(sys.argv[3])
    os.environ.pop(commandline.ROOM_NAME, None)
    for own in (requests, hints):
        own.set_inheritable(False)
    sys.argv = [sys.argv[0]]
    try:
        plan = WarmPlan.decode((home / "plan").read_bytes())
        server, facts = _make(plan, requests, hints)
    except (NotPreloaded, UnreadableRecord, OSError) as error:
        tell(requests, {"unusable": str(error)})
        return
    tell(requests, {"ready": facts})
    server.serve()


def _make(plan: WarmPlan, requests: socket.socket, hints: socket.socket) -> tuple[Server, dict[str, Any]]:
    began = time.monotonic()
    own = {requests.fileno(), hints.fileno()}
    witness, generators = Witness(), Generators()
    with generators.noted():
        with witness.noting():
            import_modules(plan)
        rehearse_run()
        with witness.noting():
            load_code_location(plan)
    if reason := fork_safety.obstacle(own):
        raise NotPreloaded(reason)
    rebirth = Rebirth(plan, generators, frozenset(fork_safety.open_descriptors() - own))
    memory = witness.memory(_looked_for(plan))
    _settle(plan)
    facts = {
        "pid": os.getpid(),
        "seconds": time.monotonic() - began,
        "modules": len(sys.modules),
        "watched": len(memory),
    }
    return Server(requests, hints, rebirth, memory), facts


def _looked_for(plan: WarmPlan) -> list[str]:
    return [os.path.join(plan.cwd or os.getcwd(), ".env")] if plan.job_origin else []


def _settle(plan: WarmPlan) -> None:
    """Becomes a process that does nothing but fork."""
    # What ends the run, or the agent, is not for the server; and it has no use for how its forks end.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    procfs.rename_process("runyard-warm")
    commandline.show_command(["runyard-warm", plan.name, plan.location])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, what the forks share
