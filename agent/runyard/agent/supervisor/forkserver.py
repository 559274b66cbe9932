"""The fork server: a small process that forks a shim for every attempt, so that the agent need not fork.

`python -I -B -m runyard.agent.supervisor.forkserver FD`, where FD is a connected Unix socket of type
SOCK_SEQPACKET. Each datagram is one JSON object:

    {"start": path}                                      to the server: fork a shim for this run directory
    {"start": path, "warm": name}                        to the server: have that warm server fork it
    {"open": name, "home": path}                         to the server: start a warm server
    {"close": name}                                      to the server: let it end
    {"shim": path, "pid": n, "start_time": ticks}        from the server: the shim lives
    {"shim": path, "error": text}                        from the server: no shim could be forked
    {"running": path}                                    from the shim: the worker's program has begun
    {"warm": name, "ready": facts}                       from the server: the warm server will fork
    {"warm": name, "unusable": reason}                   from the server: it will not, and ends
    {"warm": name, "refused": path, "reason": text}      from the server: the shim was forked cold instead
    {"warm": name, "gone": how}                          from the server: its process has ended

These are hints that save waiting; the truth is in the run directories, so a lost datagram does no harm.
A warm server forks shims of its own, so that their workers have imported everything; for all else they are
like those that are forked here. Whichever fork comes second finds the run directory locked, or `starting`.
When the agent goes, the server takes no more requests and stays until its last child is gone: it is the
parent of the shims and, should a shim be killed, of its worker, whose fence it then enforces and whose exit
it writes down. Standard library only.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from resource import struct_rusage
from typing import Any, NoReturn

from runyard.agent.supervisor import procfs, shim, warm_children
from runyard.agent.supervisor.attempt_resources import AttemptResources, attempt_resources_of
from runyard.agent.supervisor.exit_records import ended, killed_before_it_began
from runyard.agent.supervisor.orphans import RETRY_SECONDS, CleanUp, Orphan
from runyard.agent.supervisor.procfs import ProcessIdentity
from runyard.agent.supervisor.records import StopRequest, UnreadableRecord
from runyard.agent.supervisor.retry import complain
from runyard.agent.supervisor.rundir import RunDirectory
from runyard.agent.supervisor.warm_children import WarmChild

MAX_DATAGRAM_BYTES = 16384
"""Larger than any path (PATH_MAX is 4096 bytes) after JSON has escaped it."""

PROCESS = "runyard fork server"

_KEPT_STRAYS = 1024


@dataclass(frozen=True)
class _End:
    """The end of a child."""

    status: int
    usage: struct_rusage


class ForkServer:
    """Forks shims on request, and stands in for those that were killed."""

    def __init__(self, agent: socket.socket) -> None:
        self._agent: socket.socket | None = agent
        self._selector = selectors.DefaultSelector()
        self._starts: dict[int, RunDirectory] = {}
        self._warm: dict[int, WarmChild] = {}
        self._warm_shims: set[int] = set()
        self._orphans: dict[int, Orphan] = {}
        self._strays: dict[int, _End] = {}
        self._clean_ups: list[CleanUp] = []
        self._has_children = False

    def serve(self) -> None:
        """Return when the agent has gone and no child is left."""
        assert self._agent is not None
        wake_out, wake_in = os.pipe()
        os.set_blocking(wake_out, False)
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler is needed for the wake-up
        self._call_when_readable(wake_out, lambda: self._on_signal(wake_out))
        self._call_when_readable(self._agent, self._on_request)
        while self._agent or self._has_children or self._warm_shims or self._clean_ups:
            for key, _ in self._selector.select(self._next_look()):
                key.data()
            self._reap()
            self._clean_ups = [each for each in self._clean_ups if not each.is_done()]

    def _call_when_readable(self, file: int | socket.socket, call: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, call)

    def _on_signal(self, wake_out: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake_out, 4096)

    def _next_look(self) -> float | None:
        looks = [look for orphan in self._orphans.values() if (look := orphan.look()) is not None]
        for server in self._warm.values():
            left = server.seconds_left()
            if left is not None and left <= 0:
                server.kill()
                looks.append(RETRY_SECONDS)
            elif left is not None:
                looks.append(left)
        looks += [clean_up.seconds_left() for clean_up in self._clean_ups]
        return min(looks, default=None)

    def _on_request(self) -> None:
        assert self._agent is not None
        try:
            datagram = self._agent.recv(MAX_DATAGRAM_BYTES)
        except OSError:
            datagram = b""
        if not datagram:
            self._on_agent_gone()
            return
        match json.loads(datagram):
            case {"start": path, "warm": name}:
                self._start_warm_shim(path, name)
            case {"start": path}:
                self._start_shim(Path(path))
            case {"open": name, "home": home}:
                self._open_warm_server(name, Path(home))
            case {"close": name}:
                for server in self._warm_servers(name):
                    server.let_go()

    def _on_agent_gone(self) -> None:
        assert self._agent is not None
        self._selector.unregister(self._agent)
        self._agent.close()
        self._agent = None
        for server in self._warm.values():
            server.let_go()

    def _start_shim(self, path: Path) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._tell_agent({"shim": str(path), "error": f"cannot fork: {error.strerror}"})
            return
        if pid == 0:
            self._become_shim(path)
        self._starts[pid] = RunDirectory(path)
        self._has_children = True
        shim_process = procfs.identify(pid)
        assert shim_process  # a child stays in /proc until it is waited for
        self._tell_agent({"shim": str(path), "pid": pid, "start_time": shim_process.start_time})

    def _warm_servers(self, name: str) -> list[WarmChild]:
        return [server for server in self._warm.values() if server.name == name]

    def _open_warm_server(self, name: str, home: Path) -> None:
        assert self._agent is not None
        try:
            server = warm_children.start(name, home, hints=self._agent)
        except (OSError, UnreadableRecord) as error:
            self._tell_agent({"warm": name, "unusable": f"cannot be started: {error}"})
            self._tell_agent({"warm": name, "gone": "it never was"})
            return
        self._warm[server.pid] = server
        self._has_children = True
        self._call_when_readable(server.socket, lambda: self._on_warm_message(server))

    def _start_warm_shim(self, path: str, name: str) -> None:
        if not any(server.ask(path) for server in self._warm_servers(name)):
            self._start_cold_instead(path, name, "the warm server is gone")

    def _start_cold_instead(self, path: str, name: str, reason: str) -> None:
        self._tell_agent({"warm": name, "refused": path, "reason": reason})
        self._start_shim(Path(path))

    def _on_warm_message(self, server: WarmChild) -> None:
        message = server.hear()
        if message is None:
            self._selector.unregister(server.socket)  # its end as a child is still to come
        else:
            self._act_on(message, server)

    def _act_on(self, message: dict[str, Any], server: WarmChild) -> None:
        match message:
            case {"shim": path, "pid": pid}:
                self._on_warm_shim(path, pid)
            case {"shim": path, "error": reason}:
                self._start_cold_instead(path, server.name, reason)
            case {"refused": path, "reason": reason}:
                self._start_cold_instead(path, server.name, reason)
            case _:
                self._tell_agent({"warm": server.name, **message})

    def _on_warm_shim(self, path: str, pid: int) -> None:
        """Watch a shim as if it were a child: it becomes one when its warm server ends."""
        process = procfs.identify(pid)
        pidfd = None if process is None else procfs.open_pidfd(process)
        self._tell_agent({"shim": path, "pid": pid, "start_time": process.start_time if process else 0})
        if pidfd is None:
            self._on_shim_end(RunDirectory(Path(path)))
            return
        self._warm_shims.add(pidfd)
        self._call_when_readable(pidfd, lambda: self._on_warm_shim_end(pidfd, RunDirectory(Path(path))))

    def _on_warm_shim_end(self, pidfd: int, directory: RunDirectory) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        self._warm_shims.discard(pidfd)
        self._on_shim_end(directory)

    def _on_warm_server_end(self, server: WarmChild, status: int) -> None:
        while (message := server.hear()) is not None:
            self._act_on(message, server)
        with contextlib.suppress(KeyError):
            self._selector.unregister(server.socket)
        server.socket.close()
        for path in server.asked:
            self._start_cold_instead(path, server.name, "the warm server died")
        self._tell_agent({"warm": server.name, "gone": ended(status, None, None).message})

    def _become_shim(self, path: Path) -> NoReturn:
        code = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            for server in self._warm.values():
                server.socket.close()
            code = shim.run(path, on_running=lambda: self._say_running(path))
        except BaseException:
            with contextlib.suppress(OSError):
                traceback.print_exc()
                sys.stderr.flush()
        finally:
            os._exit(code)

    def _say_running(self, path: Path) -> None:
        # In the shim, which closes its copy of the socket: it must not outlive the server's for long.
        assert self._agent is not None
        self._tell_agent({"running": str(path)})
        self._agent.close()

    def _tell_agent(self, message: dict[str, Any]) -> None:
        if self._agent is not None:
            with contextlib.suppress(OSError):
                self._agent.send(json.dumps(message).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._has_children = False
                return
            if pid == 0:
                return
            self._on_child_end(pid, _End(status, usage))

    def _on_child_end(self, pid: int, end: _End) -> None:
        if pid in self._starts:
            self._on_shim_end(self._starts.pop(pid))
        elif pid in self._warm:
            self._on_warm_server_end(self._warm.pop(pid), end.status)
        elif pid in self._orphans:
            orphan = self._orphans.pop(pid)
            self._conclude(orphan.directory, end, orphan.stop, orphan.resources)
        else:
            # A worker may be reaped before the shim that was killed with it.
            self._strays[pid] = end
            while len(self._strays) > _KEPT_STRAYS:
                self._strays.pop(next(iter(self._strays)))

    def _on_shim_end(self, directory: RunDirectory) -> None:
        try:
            worker = directory.read_worker()
            if not directory.is_starting or directory.read_exit() is not None or directory.is_locked():
                return
        except (OSError, UnreadableRecord) as error:
            complain(PROCESS, error, "leaving the attempt to the agent")
            return
        if worker is None:
            resources = attempt_resources_of(directory, worker=None)
            self._clean_ups.append(CleanUp(directory, killed_before_it_began(), resources, PROCESS))
        elif self._is_my_child(worker.process):
            self._orphans[worker.pid] = Orphan(directory, worker.process)
        elif worker.pid in self._strays:
            end, resources = self._strays.pop(worker.pid), attempt_resources_of(directory, worker.pid)
            self._conclude(directory, end, directory.read_stop(), resources)

    def _is_my_child(self, process: ProcessIdentity) -> bool:
        stat = procfs.read_stat(process.pid)
        return stat is not None and stat.identity == process and stat.parent == os.getpid()

    def _conclude(
        self, directory: RunDirectory, end: _End, stop: StopRequest | None, resources: AttemptResources
    ) -> None:
        exit_record = ended(end.status, end.usage, stop)
        self._clean_ups.append(CleanUp(directory, exit_record, resources, PROCESS))


def main() -> None:
    """Serve the agent at the other end of the socket whose descriptor is the first argument."""
    agent = socket.socket(fileno=int(sys.argv[1]))
    agent.set_inheritable(False)
    # A terminal's ^C, or a service manager's SIGTERM to the whole group, is for the agent alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    procfs.become_subreaper()
    procfs.rename_process("runyard-forks")
    shim.protect_from_oom_killer()
    gc.freeze()  # keeps the collector from touching, and so copying, what the shims share
    ForkServer(agent).serve()


if __name__ == "__main__":
    main()
