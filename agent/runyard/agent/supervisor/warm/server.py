"""A warm server: answers the fork server's requests for shims with forks of itself.

Started as `python boot.py REQUESTS HINTS HOME ROOM`. REQUESTS is a socket of type SOCK_SEQPACKET whose other
end is the fork server's; HINTS is the fork server's own end of the socket to the agent, for the shims; HOME
holds the `plan`; ROOM only reserves space in the command line. Each datagram is one JSON object:

    {"ready": facts}                     from the server: it will fork
    {"unusable": reason}                 from the server: it will not, and ends
    {"start": path}                      to the server: fork a shim for this run directory
    {"shim": path, "pid": n}             from the server: the shim lives
    {"refused": path, "reason": text}    from the server: no fork, now or later
    {"shim": path, "error": text}        from the server: this fork failed

The server ends when the fork server closes its end. Its forks continue: the fork server is the subreaper, and
so becomes their parent.
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
from runyard.agent.supervisor.warm.become_worker import BecomeWorker
from runyard.agent.supervisor.warm.change_detection import ReadRecorder, Snapshot
from runyard.agent.supervisor.warm.plan import WarmPlan
from runyard.agent.supervisor.warm.preload import (
    NotPreloaded,
    import_modules,
    load_code_location,
    warm_up,
)
from runyard.agent.supervisor.warm.randomness import Generators

MAX_DATAGRAM_BYTES = 16384
"""As in the fork server."""


class Server:
    """Forks shims until the fork server closes the socket, or forking is no longer safe.

    Args:
        requests: The socket to the fork server.
        hints: The socket on which shims report to the agent that a worker has started.
        become_worker: Turns a fork into a worker.
        snapshot: State of the imported files, for change detection.
    """

    def __init__(
        self, requests: socket.socket, hints: socket.socket, become_worker: BecomeWorker, snapshot: Snapshot
    ) -> None:
        self._requests = requests
        self._hints = hints
        self._become_worker = become_worker
        self._snapshot = snapshot

    def serve(self) -> None:
        """Serve requests until the fork server closes the socket, or until the first refusal."""
        while datagram := self._requests.recv(MAX_DATAGRAM_BYTES):
            path = json.loads(datagram)["start"]
            reason = fork_safety.threads() or self._snapshot.change()
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
            code = shim.run(path, lambda: self._say_running(path), self._become_worker)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _say_running(self, path: Path) -> None:
        tell(self._hints, {"running": str(path)})
        self._hints.close()


def tell(peer: socket.socket, message: dict[str, Any]) -> None:
    """Send a datagram; dropped if the peer has gone or does not read. No single datagram is essential."""
    try:
        peer.send(json.dumps(message).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return


def main() -> None:
    """Read the plan, import its modules, check that forking is safe, and serve."""
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
    recorder, generators = ReadRecorder(), Generators()
    with generators.recording():
        with recorder.recording():
            import_modules(plan)
        warm_up()
        with recorder.recording():
            load_code_location(plan)
    if reason := fork_safety.obstacle(own):
        raise NotPreloaded(reason)
    become_worker = BecomeWorker(plan, generators, frozenset(fork_safety.open_descriptors() - own))
    snapshot = recorder.snapshot(_extra_files(plan))
    _become_forker(plan)
    facts = {
        "pid": os.getpid(),
        "seconds": time.monotonic() - began,
        "modules": len(sys.modules),
        "watched": len(snapshot),
    }
    return Server(requests, hints, become_worker, snapshot), facts


def _extra_files(plan: WarmPlan) -> list[str]:
    return [os.path.join(plan.cwd or os.getcwd(), ".env")] if plan.job_origin else []


def _become_forker(plan: WarmPlan) -> None:
    """Prepare this process to do nothing but fork."""
    # Signals to end the run or the agent are not for the server, and it does not wait for its forks.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    procfs.rename_process("runyard-warm")
    commandline.show_command(["runyard-warm", plan.name, plan.location])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    gc.collect()
    gc.freeze()  # the collector would touch shared pages, and so copy them
