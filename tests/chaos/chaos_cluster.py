"""A coordinator and agents as real processes, and what is done to them."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from chaos.ledger import Ledger
from chaos.network import Network, inside
from harness.certificates import CLIENT, OPERATOR, Authority, tls_settings
from harness.processes import Child, Processes, free_port, wait_for_text
from harness.services import ROOT_TOO
from harness.waiting import wait_until

from runyard.client import Client, CoordinatorUnreachable, Health, NodeNotFound, RunNotFound
from runyard.v1 import fleet_pb2, run_pb2

READY = '"event": "ready"'
SESSION_LOST = '"event": "session_ended"'

RELAY = (sys.executable, str(Path(__file__).with_name("relay.py")))

POLL = 0.01
"""Seconds between two looks while a time is taken."""


@dataclass(frozen=True)
class Tempo:
    """The coordinator's settings, in seconds: short ones, for tests that wait for leases."""

    heartbeat_interval: float = 0.5
    lease: float = 2.0
    recovery: float = 3.0
    lost_after: float = 6.0

    def environment(self) -> dict[str, str]:
        """As the coordinator reads them."""
        return {f"RUNYARD_COORDINATOR_{name.upper()}": str(value) for name, value in vars(self).items()}


SHORT = Tempo()


@dataclass
class ChaosCluster:
    """A coordinator and agents, each with its state below one folder.

    Attributes:
        folder: Where everything is kept.
        processes: Who starts them.
        ledger: What the workers say.
        client: Talks to the coordinator from outside.
        operator: The same for what only operators may do.
        address: Where the coordinator listens.
        network: Namespaces to run in; None: this machine's loopback.
        tempo: The coordinator's settings.
        authority: Gives certificates to all of them, where there is a network.
        extra: Environment of the coordinator and the agents beside that.
        agents: Those that were started last, by node ID.
        detour: What agents dial instead of the coordinator; empty for the straight way.
    """

    folder: Path
    processes: Processes
    ledger: Ledger
    client: Client
    operator: Client
    address: str
    network: Network | None
    tempo: Tempo
    authority: Authority
    extra: Mapping[str, str] = field(default_factory=dict)
    agents: dict[str, Child] = field(default_factory=dict)
    detour: str = ""

    def start_coordinator(self) -> None:
        """Returns when it serves, and the client has found it again."""
        self.begin_coordinator()
        wait_for_text(self.coordinator, READY)
        wait_until(self._answers, self.coordinator.tail)

    def begin_coordinator(self, **environ: str) -> None:
        """As `start_coordinator`, and returns at once. It gets `environ` in its environment too."""
        prefix = inside(self.network.hub) if self.network else ()
        options = ("--listen", self.address)
        settings = {**self.tempo.environment(), **environ}
        self.coordinator = self._begin("coordinator", prefix, "coordinator", *options, **settings)

    def _answers(self) -> bool:
        try:
            return self.client.check_health() is Health.SERVING
        except CoordinatorUnreachable:
            return False

    def start_agent(self, node: str, *, slots: int = 8, boot_id: str = "") -> None:
        """Returns when it is in session.

        Args:
            node: Its ID; also the name of the folder of its state.
            slots: How many workers it may have at once.
            boot_id: What its kernel is to say; by default the truth.
        """
        self.begin_agent(node, slots=slots, boot_id=boot_id)
        wait_for_text(self.agents[node], READY)

    def begin_agent(self, node: str, *, slots: int = 8, boot_id: str = "", **environ: str) -> None:
        """As `start_agent`, and returns at once. The agent gets `environ` in its environment too."""
        address = self.detour or self.address
        prefix: tuple[str, ...] = ()
        if self.network is not None:
            wire = self.network.wires.get(node) or self.network.wire(node)
            address, prefix = wire.address, inside(wire.namespace)
        if boot_id:
            said = self.folder / f"{node}.boot_id"
            said.write_text(f"{boot_id}\n")
            mount = f"mount --bind {said} /proc/sys/kernel/random/boot_id"
            prefix = (*prefix, "unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
        options = ("--coordinator", address, "--node", node, "--slots", str(slots))
        # The workers here are no Dagster, so they never say that they are up.
        ours = {"MAX_CONCURRENT_STARTS": str(slots), "POLICY": json.dumps(ROOT_TOO["policy"])}
        environ = {**{f"RUNYARD_AGENT_{name}": value for name, value in ours.items()}, **environ}
        self.agents[node] = self._begin(node, prefix, "agent", *options, **environ)

    def _begin(self, name: str, prefix: tuple[str, ...], part: str, *options: str, **environ: str) -> Child:
        common = ("--state", str(self.folder / name / "state"), "--log-format", "json")
        argv = (*prefix, sys.executable, "-m", f"runyard.{part}", *options, *common, *self._tls(name))
        # A proxy knows nothing of these namespaces.
        direct = {f"{scheme}_proxy": "" for scheme in ("http", "https", "grpc", "all")}
        return self.processes.start(name, *argv, environment={**direct, **self.extra, **environ})

    def _tls(self, name: str) -> Iterator[str]:
        """The certificates of the coordinator or of a node, where there is a network."""
        if self.network is None:
            return
        folder = self.folder / name / "tls"
        gateways = (f"10.210.{number}.1" for number in range(1, Network.MOST_WIRES + 1))
        files = (
            self.authority.coordinator(folder, *gateways)
            if name == "coordinator"
            else self.authority.agent(folder, name)
        )
        yield from (f"--tls-{part}={path}" for part, path in tls_settings(files).items())

    def slow_down(self, delay: float, jitter: float) -> None:
        """Has agents that are started from now on reach the coordinator over a slow network; in seconds."""
        port = free_port()
        target = self.address.rpartition(":")[2]
        argv = (*RELAY, str(port), target, str(delay), str(jitter))
        wait_for_text(self.processes.start("relay", *argv), "open")
        self.detour = f"127.0.0.1:{port}"

    def state_of(self, name: str) -> Path:
        """Where the state of the coordinator or of a node is. A disk may be mounted on its parent."""
        return self.folder / name / "state"

    def kill(self, child: Child) -> None:
        """SIGKILL, and returns when it is gone."""
        self.processes.kill(child)

    @contextmanager
    def frozen(self, child: Child) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end of the block."""
        child.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            child.process.send_signal(signal.SIGCONT)

    def fork_server(self, node: str) -> int:
        """Process ID of the agent's fork server."""

        def found() -> int | None:
            for child in psutil.Process(self.agents[node].pid).children():
                if child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
            return None

        return wait_until(found, f"agent {node} has no fork server")

    def shim(self, run_id: str) -> int:
        """Process ID of the shim of a run that runs."""
        run = self.run(run_id)
        path = self.state_of(run.node) / "runs" / run_id / str(run.attempt) / "worker"
        return int(json.loads(path.read_text())["shim_pid"])

    def node(self, node: str) -> fleet_pb2.Node:
        """What the coordinator makes of a node."""
        return self.client.get_node(node)

    def is_ready(self, node: str) -> bool:
        """True if the coordinator can be reached and the node is in session."""
        try:
            return self.node(node).state == fleet_pb2.NODE_STATE_READY
        except (CoordinatorUnreachable, NodeNotFound):
            return False

    def is_silent(self, node: str) -> bool:
        """True if the node's lease has run out."""
        return self.node(node).state in (fleet_pb2.NODE_STATE_UNREACHABLE, fleet_pb2.NODE_STATE_LOST)

    def wait_ready(self, *nodes: str, timeout: float = 60.0) -> None:
        """Returns when all nodes, or the named ones, are in session."""
        for node in nodes or self.agents:
            wait_until(partial(self.is_ready, node), self.describe, timeout)

    def run(self, run_id: str) -> run_pb2.Run:
        """The latest attempt of a run."""
        return self.client.get_run(run_id).run

    def is_over(self, run_id: str) -> bool:
        """True if the coordinator can be reached and says so."""
        try:
            return self.run(run_id).phase == run_pb2.PHASE_FINISHED
        except (CoordinatorUnreachable, RunNotFound):
            return False

    def runs(self) -> dict[str, run_pb2.Run]:
        """All runs by ID."""
        return {run.run_id: run for run in self.client.list_runs()}

    def describe(self) -> str:
        """For failed tests: nodes, and the ends of all logs."""
        try:
            nodes = "\n".join(f"{node.node_id}: {node.state}" for node in self.client.list_nodes())
        except CoordinatorUnreachable as error:
            nodes = str(error)
        children = [getattr(self, "coordinator", None), *self.agents.values()]
        tails = "\n".join(f"--- {child.name}\n{child.tail()}" for child in children if child)
        return f"nodes:\n{nodes}\n{tails}"


@contextmanager
def open_cluster(
    folder: Path, *, network: Network | None = None, tempo: Tempo = SHORT, **extra: str
) -> Iterator[ChaosCluster]:
    """An empty cluster, cleared away at the end of the block with everything that it started.

    Args:
        folder: An empty folder whose path is short enough for a socket in it.
        network: Namespaces to run in.
        tempo: The coordinator's settings.
        **extra: Environment of the coordinator and the agents.
    """
    processes = Processes(folder)
    with ExitStack() as stack:
        stack.callback(processes.close)
        address = f"127.0.0.1:{free_port()}"
        door = address
        if network is not None:
            address, door = f"0.0.0.0:{Network.PORT}", f"unix:{folder / 'door'}"
            argv = (*inside(network.hub), *RELAY, str(folder / "door"), str(Network.PORT))
            wait_for_text(processes.start("door", *argv), "open")
        authority = Authority()
        tls = None if network is None else authority.holder(folder / "client", CLIENT)
        client = stack.enter_context(Client(door, timeout=5.0, tls=tls))
        tls = None if network is None else authority.holder(folder / "operator", OPERATOR)
        operator = stack.enter_context(Client(door, timeout=5.0, tls=tls))
        ledger = Ledger(folder)
        cluster = ChaosCluster(
            folder, processes, ledger, client, operator, address, network, tempo, authority, extra
        )
        yield cluster


def seconds_until(condition: Callable[[], object], what: str, timeout: float = 60.0) -> float:
    """How long it took until the condition came true."""
    started = time.monotonic()
    wait_until(lambda: bool(condition()), what, timeout, poll=POLL)
    return time.monotonic() - started


def kill_pid(pid: int) -> None:
    """SIGKILL to a process that need not be our child."""
    os.kill(pid, signal.SIGKILL)
