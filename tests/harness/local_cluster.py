"""Runyard's own side of a deployment: a coordinator and its agents."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runyard.client.client import Client
from runyard.v1 import run_pb2

from .processes import Child, Processes, free_port, wait_for_text

ROOT_TOO: Mapping[str, Any] = MappingProxyType({"policy": {"allow_root": True}})
"""Settings of agents whose workers may be root, if that is who tries this out. Not for real nodes."""

READY = '"event": "ready"'
"""What the log of a coordinator or an agent contains once it serves or is in session."""


@dataclass(frozen=True)
class WorkerProcesses:
    """The processes of one attempt, as the agent's disk has them."""

    pid: int
    """Of the worker, or of the first process in its container."""
    shim_pid: int
    """0 in a container, which has none."""


class LocalCluster:
    """A coordinator and agents, each with its state below one folder."""

    def __init__(self, processes: Processes, folder: Path, routing: Path | None = None) -> None:
        """Starts nothing.

        Args:
            processes: Where the processes are started.
            folder: Where they keep their state.
            routing: The coordinator's routing file.
        """
        self.address = f"127.0.0.1:{free_port()}"
        self._processes = processes
        self._folder = folder
        self._routing = ("--routing", str(routing.resolve())) if routing else ()
        self.client = Client(self.address)
        self.agents: dict[str, Child] = {}

    def start_coordinator(self) -> Child:
        """Starts the coordinator, and returns when it serves. Its state survives a restart."""
        state = self._folder / "coordinator"
        self.coordinator = self._start(
            "coordinator", "--listen", self.address, "--state", str(state), *self._routing
        )
        wait_for_text(self.coordinator, READY)
        return self.coordinator

    def start_agent(
        self,
        node: str,
        cluster: str,
        *,
        slots: int = 4,
        labels: Sequence[str] = (),
        settings: Mapping[str, Any] = ROOT_TOO,
    ) -> Child:
        """As `begin_agent`, and returns when the agent is in session. Its state survives a restart."""
        self.agents[node] = self.begin_agent(node, cluster, slots=slots, labels=labels, settings=settings)
        wait_for_text(self.agents[node], READY)
        return self.agents[node]

    def begin_agent(
        self,
        node: str,
        cluster: str,
        *,
        slots: int = 4,
        labels: Sequence[str] = (),
        state: str = "",
        settings: Mapping[str, Any] = ROOT_TOO,
    ) -> Child:
        """Starts an agent, and returns at once.

        Args:
            node: Node ID.
            cluster: Cluster to join.
            slots: How many workers it may have at once.
            labels: Each `key=value`.
            state: Name of the folder of its state; as the node if empty.
            settings: Further ones, as in its configuration file.
        """
        return self._start(
            "agent",
            *("--coordinator", self.address, "--node", node, "--cluster", cluster, "--slots", str(slots)),
            *("--state", str(self._folder / (state or node))),
            *(argument for label in labels for argument in ("--label", label)),
            name=state or node,
            **settings,
        )

    def _start(self, part: str, *arguments: str, name: str = "", **settings: Any) -> Child:
        argv = (sys.executable, "-m", f"runyard.{part}", *arguments, "--log-format", "json")
        prefix = f"RUNYARD_{part.upper()}_"
        environment = {f"{prefix}{key.upper()}": json.dumps(value) for key, value in settings.items()}
        return self._processes.start(name or part, *argv, environment=environment)

    def run(self, run_id: str) -> run_pb2.Run:
        """The latest attempt of a run."""
        return self.client.get_run(run_id).run

    def runs(self) -> dict[str, run_pb2.Run]:
        """The latest attempts of all runs, by run ID."""
        return {run.run_id: run for run in self.client.list_runs()}

    def live_runs(self) -> list[run_pb2.Run]:
        """All runs that are not over."""
        return [run for run in self.runs().values() if run.phase != run_pb2.PHASE_FINISHED]

    def worker(self, run: run_pb2.Run) -> WorkerProcesses:
        """The processes of an attempt that is RUNNING, from the run directory on its node."""
        directory = self._folder / run.node / "runs" / run.run_id / str(run.attempt)
        container = directory / "container"
        content = json.loads((container if container.exists() else directory / "worker").read_text())
        return WorkerProcesses(pid=content["pid"], shim_pid=content.get("shim_pid", 0))

    def close(self) -> None:
        """Closes the client; the processes belong to `Processes`."""
        self.client.close()
