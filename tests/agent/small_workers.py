"""Tiny real workers under a real coordinator and real agents: shell scripts in place of an interpreter."""

import uuid
from contextlib import suppress
from pathlib import Path

from agent.node_side import kill_everything
from harness.services import ProcessCluster, Service
from harness.waiting import wait_until

from runyard.agent.supervisor.rundir import RunDirectories
from runyard.client import Client, CoordinatorUnreachable, RunNotFound
from runyard.v1 import fleet_pb2, run_pb2

RHYTHM = {"heartbeat_interval": 0.3, "lease": 1.5, "recovery": 30.0}
"""Settings of a coordinator that notices silence soon, but not just after its start."""


class Plant:
    """A coordinator, agents, and workers that the test controls through files.

    A worker notes each start, writes what it is told to, and ends when its gate is opened.
    """

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster
        self.folder = cluster.folder
        # Unlike in any other test: what is left of a worker is found, and ended, by the run's ID.
        self._family = uuid.uuid4().hex[:8]

    def run_id(self, number: int = 1) -> str:
        """The ID of the run with that number."""
        return f"{self._family}-0000-4000-8000-{number:012}"

    # Services

    def start_coordinator(self, **settings: object) -> Service:
        """A coordinator that serves."""
        coordinator = self.cluster.coordinator(settings={**RHYTHM, **settings})
        coordinator.wait_for_event("ready")
        return coordinator

    def start_agent(self, node: str = "node-a", *, state: str = "", **settings: object) -> Service:
        """An agent that is in session."""
        agent = self.cluster.agent(node, settings=settings, state=state)
        agent.wait_for_event("ready")
        return agent

    def close(self) -> None:
        """Ends all workers."""
        for state in self.folder.glob("*/runs"):
            kill_everything(RunDirectories(state.parent))

    # Workers

    def launch(self, number: int = 1, script: str = "", executable: str = "") -> run_pb2.Run:
        """Launches a worker that notes its start, runs `script`, and waits for its gate."""
        spec = run_pb2.LaunchSpec(
            run_id=self.run_id(number),
            kind=run_pb2.LAUNCH_KIND_EXECUTE,
            worker_args="{}",
            deployment="shop",
            code_origin=run_pb2.CodeOrigin(
                location="shop.py", job="orders", executable=executable or str(self._worker(number, script))
            ),
        )
        with self.client() as client:
            return client.launch_run(spec, timeout=30.0)

    def launch_busy(self, number: int = 1, script: str = "") -> run_pb2.Run:
        """As `launch`, and returns when the worker is at work."""
        self.launch(number, script)
        wait_until(lambda: self.starts(number), lambda: self.describe(number))
        return self.until_phase(run_pb2.PHASE_RUNNING, number)

    def starts(self, number: int = 1) -> list[int]:
        """The process IDs of all workers that were ever started for the run."""
        ledger = self.folder / f"starts-{number}"
        return [int(line) for line in ledger.read_text().split()] if ledger.exists() else []

    def open_gate(self, number: int = 1) -> None:
        """Lets the worker end."""
        (self.folder / f"gate-{number}").touch()

    def _worker(self, number: int, script: str) -> Path:
        path = self.folder / f"worker-{number}"
        path.write_text(
            f"#!/bin/sh\necho $$ >> {self.folder}/starts-{number}\n{script}\n"
            f"while [ ! -e {self.folder}/gate-{number} ]; do sleep 0.05; done\n"
        )
        path.chmod(0o755)
        return path

    # What the coordinator knows

    def client(self) -> Client:
        """A client of the coordinator."""
        return Client(self.cluster.address)

    def run(self, number: int = 1) -> run_pb2.Run | None:
        """The run; None while the coordinator cannot tell."""
        with suppress(RunNotFound, CoordinatorUnreachable), self.client() as client:
            return client.get_run(self.run_id(number)).run
        return None

    def until_phase(self, phase: run_pb2.Phase.ValueType, number: int = 1) -> run_pb2.Run:
        """The run, as soon as it is in that phase and its node is in session."""

        def reached() -> run_pb2.Run | None:
            run = self.run(number)
            return run if run and run.phase == phase and not run.unreachable else None

        return wait_until(reached, lambda: self.describe(number))

    def outcome(self, number: int = 1) -> run_pb2.Outcome:
        """How the run ended, as soon as it has."""
        return self.until_phase(run_pb2.PHASE_FINISHED, number).outcome

    def until_node(self, state: fleet_pb2.NodeState.ValueType, node: str = "node-a") -> fleet_pb2.Node:
        """The node, as soon as it is in that state."""

        def reached() -> fleet_pb2.Node | None:
            with self.client() as client:
                found = client.get_node(node)
            return found if found.state == state else None

        return wait_until(reached, f"node {node} in state {fleet_pb2.NodeState.Name(state)}")

    def describe(self, number: int = 1) -> str:
        """Everything known of a run, for tests that fail."""
        return f"starts: {self.starts(number)}, run: {self.run(number)}"
