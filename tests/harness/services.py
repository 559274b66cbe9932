"""Real coordinators and agents as processes, to be killed, stopped and frozen."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.folders import remove
from harness.waiting import wait_until

ROOT_TOO: Mapping[str, object] = MappingProxyType({"policy": {"allow_root": True}})
"""Settings of agents whose workers may be root, as whom tests often run."""


class Service:
    """One process of `python -m runyard.<part>`.

    Args:
        part: `coordinator` or `agent`.
        log: Where its output goes.
        arguments: Of the command.
        settings: By name, given as environment variables.
    """

    def __init__(self, part: str, log: Path, *arguments: str, settings: Mapping[str, object]) -> None:
        self.log = log
        environment = {
            f"RUNYARD_{part.upper()}_{name.upper()}": json.dumps(value) for name, value in settings.items()
        }
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"runyard.{part}", "--log-format", "json", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    def output(self) -> str:
        """Everything printed so far."""
        return self.log.read_text(errors="backslashreplace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of that name."""
        lines = [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def wait_for_event(self, name: str, times: int = 1) -> dict[str, Any]:
        """The log line of that name, as soon as there are so many; fails if the process ends before.

        Raises:
            AssertionError: The process ended, or the time is up.
        """

        def logged() -> dict[str, Any] | None:
            found = self.events(name)
            if len(found) >= times:
                return found[-1]
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output()}"
            return None

        return wait_until(logged, lambda: f"no {name!r} in\n{self.output()}", timeout=60.0)

    def kill(self) -> None:
        """Ends the process by SIGKILL, and returns when it is gone."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def exit_code(self, within: float = 60.0) -> int:
        """The exit code, as soon as the process has ended."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within:g} s:\n{self.output()}") from None

    def terminate(self, within: float = 60.0) -> int:
        """Ends the process by SIGTERM. Returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code(within)


class ProcessCluster:
    """A folder in which coordinators and agents live, with one address for the coordinator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix:{folder / 'socket'}"
        self._services: list[Service] = []

    def coordinator(
        self,
        *arguments: str,
        state: str = "coordinator",
        settings: Mapping[str, object] = MappingProxyType({}),
    ) -> Service:
        """Starts a coordinator."""
        ours = ("--listen", self.address, "--state", str(self.folder / state))
        return self._start("coordinator", *ours, *arguments, settings=settings)

    def agent(
        self,
        node: str = "node-a",
        *arguments: str,
        state: str = "",
        settings: Mapping[str, object] = MappingProxyType({}),
    ) -> Service:
        """Starts an agent."""
        ours = ("--coordinator", self.address, "--node", node, "--state", str(self.folder / (state or node)))
        return self._start("agent", *ours, *arguments, settings={**ROOT_TOO, **settings})

    def close(self) -> None:
        """Kills all services. Their workers are the test's to end."""
        for service in self._services:
            service.signal(signal.SIGCONT)
            service.kill()

    def _start(self, part: str, *arguments: str, settings: Mapping[str, object]) -> Service:
        log = self.folder / f"{part}-{len(self._services)}.log"
        service = Service(part, log, *arguments, settings=settings)
        self._services.append(service)
        return service


@contextmanager
def open_cluster() -> Iterator[ProcessCluster]:
    """A cluster in a folder with a name that is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ry-"))
    cluster = ProcessCluster(folder)
    try:
        yield cluster
    finally:
        cluster.close()
        remove(folder)
