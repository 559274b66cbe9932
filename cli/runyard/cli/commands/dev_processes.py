"""A coordinator and an agent as child processes, for `runyard dev`."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from runyard.cli.doctor.dagster_checks import launcher_yaml
from runyard.client.client import Client
from runyard.client.errors import RunyardError
from runyard.client.health import Health
from runyard.common.phases import PHASES_ON_A_NODE
from runyard.common.transport.address import parse_address, require_local
from runyard.v1 import fleet_pb2

NODE_ID: Final = "dev"

# Both need less than a second to stop; a run's worker is not waited for.
_STOP_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1

# Both serve this machine only, and run as the user who typed the command, who may override this.
_ROOT_TOO: Final = {"RUNYARD_AGENT_POLICY": "{allow_root: true}"}


@dataclass(frozen=True)
class Serving:
    """The coordinator answers."""


@dataclass(frozen=True)
class NodeReady:
    """The agent is in session."""


@dataclass(frozen=True)
class StopAsked:
    """Ctrl-C, or a signal to this process."""


@dataclass(frozen=True)
class Ended:
    """A child process is over; `code` is as a shell would give it."""

    child: str
    code: int


Event = Serving | NodeReady | StopAsked | Ended


class Development:
    """One coordinator and one agent, from their start until the first of them ends or the user stops them."""

    def __init__(self, state: Path, listen: str, slots: int | None, labels: Sequence[str]) -> None:
        """Checks the address; starts nothing.

        Args:
            state: Directory for the state of both; made if need be.
            listen: Where the coordinator listens; on this machine only.
            slots: How many runs may live at once. None: as the agent sees fit.
            labels: `KEY=VALUE` labels of the node.

        Raises:
            InvalidAddress: `listen` cannot be understood.
            InsecureAddress: `listen` is reachable beyond this machine.
        """
        self._address = parse_address(listen, "listen")
        require_local(self._address, "listen on")
        self._state = state.absolute()
        self._agent_options = [
            *(["--slots", str(slots)] if slots is not None else []),
            *(option for label in labels for option in ("--label", label)),
        ]
        self._console = Console(highlight=False, soft_wrap=True)
        # A signal handler may put into this queue while the same thread takes from it.
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._over = threading.Event()

    def run(self) -> int:
        """Runs both until the end.

        Returns:
            The exit code of whichever child ended by itself first; 0 if the user stopped them.
        """
        self._state.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: self._events.put(StopAsked()))
        self._start_coordinator()
        threading.Thread(target=self._watch_readiness, daemon=True).start()
        try:
            return self._until_the_end()
        finally:
            self._over.set()
            self._stop_children()

    def _until_the_end(self) -> int:
        while True:
            match self._events.get():
                case Serving():
                    self._start_agent()
                case NodeReady():
                    self._say_ready()
                case StopAsked():
                    self._say_what_goes_on()
                    return 0
                case Ended(child, code):
                    self._say(f"the {child} ended with exit code {code}; stopping", "red")
                    return code

    # Children

    def _start_coordinator(self) -> None:
        options = ["--listen", str(self._address), "--state", str(self._state / "coordinator")]
        self._start("coordinator", "cyan", options)

    def _start_agent(self) -> None:
        options = ["--coordinator", str(self._address), "--state", str(self._state / "agent")]
        self._start("agent", "magenta", [*options, "--node", NODE_ID, *self._agent_options])

    def _start(self, name: str, color: str, options: Sequence[str]) -> None:
        child = subprocess.Popen(
            [sys.executable, "-m", f"runyard.{name}", "--log-format", "console", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**_ROOT_TOO, **os.environ, "PYTHONUNBUFFERED": "1"},
            # The terminal's Ctrl-C is for us alone: we stop them in order.
            process_group=0,
        )
        self._children[name] = child
        threading.Thread(target=self._follow, args=(name, color, child), daemon=True).start()

    def _follow(self, name: str, color: str, child: subprocess.Popen[str]) -> None:
        """Copy the output of a child until it ends, and report what it shows."""
        assert child.stdout is not None
        for line in child.stdout:
            self._console.print(Text.assemble((f"{name:<11} ", color), Text.from_ansi(line.rstrip("\n"))))
        code = child.wait()
        self._events.put(Ended(name, code if code >= 0 else 128 - code))

    def _stop_children(self) -> None:
        """The agent first, so that it can take its leave of the coordinator. Bounded."""
        for name in ("agent", "coordinator"):
            child = self._children.get(name)
            if child is None or child.poll() is not None:
                continue
            child.terminate()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._say(f"the {name} does not stop; killing it", "red")
                child.kill()
                child.wait()

    # Readiness

    def _watch_readiness(self) -> None:
        with Client(str(self._address), timeout=1.0) as client:
            self._poll(lambda: client.check_health() is Health.SERVING)
            self._events.put(Serving())
            self._poll(lambda: client.get_node(NODE_ID).state == fleet_pb2.NODE_STATE_READY)
            self._events.put(NodeReady())

    def _poll(self, ready: Callable[[], bool]) -> None:
        while not self._over.is_set():
            try:
                if ready():
                    return
            except RunyardError:
                pass  # not up yet; if it never comes up, its process ends
            self._over.wait(_POLL_SECONDS)

    # Words

    def _say(self, text: str, color: str) -> None:
        self._console.print(Text(text, style=color))

    def _say_ready(self) -> None:
        self._say("\nready. Put this into dagster.yaml:\n", "bold green")
        self._say(launcher_yaml(str(self._address)), "")

    def _say_what_goes_on(self) -> None:
        try:
            with Client(str(self._address), timeout=1.0) as client:
                live = len(list(client.list_runs(phases=PHASES_ON_A_NODE)))
        except RunyardError:
            live = 0
        self._say("stopping", "bold")
        if live:
            self._say(
                f"{live} runs go on by themselves; the next `runyard dev` takes them up again", "yellow"
            )
