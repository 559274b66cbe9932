"""Child processes: each with a log, each stopped by its process ID, none left behind."""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "RUNYARD_DEPLOYMENT"
"""Environment variable of everything that we start: the folder of its deployment, to find it again."""

_NOT_GIVEN_AWAY = range(20_000, 32_768)
"""Ports below those of net.ipv4.ip_local_port_range, as Linux has it unless it is told otherwise."""

_ports = itertools.islice(itertools.cycle(_NOT_GIVEN_AWAY), random.randrange(len(_NOT_GIVEN_AWAY)), None)


@dataclass(frozen=True)
class Child:
    """A process that we started, and where in which file its output begins."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    log_offset: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        """Everything printed so far."""
        with self.log.open("rb") as file:
            file.seek(self.log_offset)
            return file.read().decode(errors="replace")

    def tail(self, lines: int = 15) -> str:
        """The last lines printed, for error messages."""
        return "\n".join(self.output().splitlines()[-lines:])


def _inherited() -> dict[str, str]:
    """This process's variables, but for those by which the command line has silenced gRPC in it."""
    return {name: value for name, value in os.environ.items() if name not in ("GRPC_TRACE", "GRPC_VERBOSITY")}


class Processes:
    """Starts and stops the processes of one deployment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []
        (folder / "logs").mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        *argv: str,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> Child:
        """Starts a process in a session of its own, so that Ctrl-C in the terminal reaches only us.

        Args:
            name: What to call it; output goes to `logs/<name>.log`, after what is there already.
            argv: Command and arguments.
            environment: Variables beside our own.
            directory: Working directory; the deployment's folder if None.
        """
        log = self._folder / "logs" / f"{name}.log"
        with log.open("ab") as sink:
            offset = sink.tell()
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=directory or self._folder,
                env={**_inherited(), **(environment or {}), MARK: str(self._folder)},
                start_new_session=True,
            )
        child = Child(name, process, log, offset)
        self._children.append(child)
        return child

    def stop(self, child: Child, grace: float = 10.0) -> None:
        """Ends a child: SIGTERM, and after `grace` seconds SIGKILL."""
        if child.alive:
            child.process.send_signal(signal.SIGTERM)
        try:
            child.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill(child)

    def kill(self, child: Child) -> None:
        """Ends a child by SIGKILL, and returns when it is gone."""
        child.process.kill()
        child.process.wait()

    def close(self) -> list[str]:
        """Stops all children, the youngest first, then whatever else was started by them.

        Returns:
            What outlived all children by seconds and had to be killed: a line for each process.
        """
        for child in reversed(self._children):
            self.stop(child)
        _, left_behind = psutil.wait_procs(self.survivors(), timeout=3)
        lines = [describe(process) for process in left_behind]
        for process in left_behind:
            process.kill()
        psutil.wait_procs(left_behind, timeout=5)
        return lines

    def survivors(self) -> list[psutil.Process]:
        """Live processes whose command or environment names the folder of this deployment."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            words = (*process.cmdline(), *process.environ().values())
            return any(str(self._folder) in word for word in words)
        except psutil.Error:
            return False  # gone meanwhile, or not our user's


def describe(process: psutil.Process) -> str:
    """One line on a process, for people."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:160]}"
    except psutil.Error:
        return f"{process.pid} (gone meanwhile)"


def wait_for_text(child: Child, text: str, timeout: float = 60.0) -> None:
    """Waits until a child has printed `text`.

    Args:
        child: Whose output to read.
        text: What to look for.
        timeout: Seconds.

    Raises:
        RuntimeError: The child ended, or the time is up.
    """

    def printed() -> bool:
        if text in child.output():
            return True
        if not child.alive:
            raise RuntimeError(f"{child.name} ended with {child.process.returncode}:\n{child.tail()}")
        return False

    try:
        wait_for(printed, f"{child.name} to print {text!r}", timeout)
    except TimeoutError as late:
        raise RuntimeError(f"{late}; it printed:\n{child.tail()}") from None


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 60.0, poll: float = 0.05) -> None:
    """Polls until `condition` holds.

    Args:
        condition: Called every `poll` seconds.
        what: What is awaited, for the error message.
        timeout: Seconds.
        poll: Seconds.

    Raises:
        TimeoutError: The time is up.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(poll)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on just now.

    It is none of those that the kernel gives away, so that it is still free a moment later, and while whoever
    listens there restarts. Each process counts on from a place of its own.
    """
    for port in itertools.islice(_ports, len(_NOT_GIVEN_AWAY)):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port
    raise OSError(f"all ports from {_NOT_GIVEN_AWAY[0]} to {_NOT_GIVEN_AWAY[-1]} are taken")
