"""A cluster on a network of its own, where nobody is trusted; set up by the command line, as operators do.

The coordinator, every node and Dagster have a network namespace each. Certificates come from `runyard ca`,
nodes join by token, and Dagster's daemon launches with a certificate for clients.
"""

import itertools
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from chaos.chaos_cluster import RELAY
from chaos.ledger import Ledger
from chaos.network import Network, inside
from harness.certificates import files_in, tls_settings
from harness.dagster_site import DagsterSite
from harness.deployment import quickstart_settings
from harness.local_cluster import ROOT_TOO
from harness.processes import Child, Processes, wait_for_text
from harness.waiting import wait_until

from runyard.client import Client
from runyard.common.security.identity import Identity, Role
from runyard.coordinator.ca.authority_directory import AuthorityDirectory
from runyard.v1 import placement_pb2, run_pb2

NODES: Final = ("alpha", "beta", "gamma")
CLUSTER: Final = "cluster"
OUTSIDE: Final = "outside"
"""Whoever else is on the network, without any certificate."""

JOIN_PORT: Final = 7172
PORTS: Final = frozenset({Network.PORT, JOIN_PORT})
"""What the coordinator's settings ask for."""

READY: Final = '"event": "ready"'
LONG: Final = 180.0
"""Seconds for a step that starts Dagster, on a machine that is busy with other things."""

DIRECT: Final = {f"{scheme}_proxy": "" for scheme in ("http", "https", "grpc", "all")}
"""A proxy knows nothing of these namespaces."""

MAIN: Final = Identity(Role.COORDINATOR, "main")
DAGSTER: Final = Identity(Role.CLIENT, "dagster")

NOTHING: Mapping[str, Any] = MappingProxyType({})


class SecureCluster:
    """All of it; see the functions' names for the order in which it is set up."""

    def __init__(self, folder: Path, network: Network, processes: Processes, lifetime: float) -> None:
        """Wires it up and makes the certificates; starts nothing that serves.

        Args:
            folder: An empty folder whose path is short enough for sockets in it.
            network: Gets a wire for everybody.
            processes: Who starts them.
            lifetime: Of all certificates, in seconds.
        """
        self.folder = folder
        self.processes = processes
        self.lifetime = lifetime
        self.network = network
        self.wires = {name: network.wire(name) for name in (*NODES, "dagster", "ops", OUTSIDE)}
        self.hosts = ("localhost", *(wire.address.rpartition(":")[0] for wire in self.wires.values()))
        self.ca = folder / "ca"
        options = itertools.chain.from_iterable(("--host", host) for host in self.hosts)
        self.command("ca", "init", str(self.ca), *options)
        self.command("ca", "issue", "--ca", str(self.ca), "--client", "dagster", "--out", str(self.dagster))
        self.agents: dict[str, Child] = {}

    @property
    def dagster(self) -> Path:
        """Where Dagster's certificate is."""
        return self.folder / "dagster-tls"

    # As operators are told to

    def command(self, *argv: str) -> str:
        """What a command of the admin's prints; it is run in a namespace of its own."""
        admin = files_in(self.ca / "admin")
        options = ["--address", self.wires["ops"].address, "--tls-authority", str(admin.authority)]
        options += ["--tls-certificate", str(admin.certificate), "--tls-key", str(admin.key)]
        line = [*self.inside("ops"), sys.executable, "-m", "runyard.cli.main", *options, *argv]
        done = subprocess.run(line, capture_output=True, text=True, timeout=LONG, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def inside(self, name: str) -> tuple[str, ...]:
        """The beginning of a command in the namespace of that name."""
        return inside(self.network.hub if name == "hub" else self.wires[name].namespace)

    def start_coordinator(self) -> None:
        """Returns when it serves."""
        settings = {
            "listen": f"0.0.0.0:{Network.PORT}",
            "join_listen": f"0.0.0.0:{JOIN_PORT}",
            "ca_directory": str(self.ca),
            "tls": tls_settings(files_in(self.ca / "coordinator")),
            "certificate_lifetime": self.lifetime,
            "state_directory": str(self.folder / "coordinator"),
        }
        self.coordinator = self._start("coordinator", "hub", "coordinator", settings)
        door = self.folder / "door"
        argv = (*self.inside("hub"), *RELAY, str(door), str(Network.PORT))
        wait_for_text(self.processes.start("door", *argv), "open")

    def start_agent(self, node: str) -> None:
        """Returns when the node has joined by a token, and is in session."""
        token = self.folder / f"{node}.token"
        token.write_text(self.command("token", "create", "--cluster", CLUSTER, "--node", node))
        token.chmod(0o600)
        address = self.wires[node].address
        settings = {
            **ROOT_TOO,
            "coordinator": address,
            "join": {"address": address.replace(str(Network.PORT), str(JOIN_PORT)), "token_file": str(token)},
            "node_id": node,
            "cluster": CLUSTER,
            "slots": 8,
            "max_concurrent_starts": 8,
            "state_directory": str(self.folder / node),
            "machine_state_command": ["true"],
        }
        self.agents[node] = self._start(node, node, "agent", settings)

    def _start(self, name: str, namespace: str, part: str, settings: Mapping[str, Any]) -> Child:
        argv = (*self.inside(namespace), sys.executable, "-m", f"runyard.{part}", "--log-format", "json")
        environment = {f"RUNYARD_{part.upper()}_{key.upper()}": json.dumps(settings[key]) for key in settings}
        child = self.processes.start(name, *argv, environment={**DIRECT, **environment})
        wait_for_text(child, READY, LONG)
        return child

    # Dagster

    @contextmanager
    def site(self, project: Path, module: str) -> Iterator[DagsterSite]:
        """Dagster with its daemon in a namespace, from where it launches."""
        settings = quickstart_settings(
            address=self.wires["dagster"].address, tls=tls_settings(files_in(self.dagster))
        )
        home = self.folder / "dagster"
        with closing(DagsterSite(self.processes, home, project, module, settings)) as site:
            argv = (*self.inside("dagster"), sys.executable, "-m", "dagster._daemon", "run")
            self.processes.start(
                "dagster-daemon",
                *(*argv, "--workspace", str(site.workspace_file)),
                environment={**DIRECT, "DAGSTER_HOME": str(home)},
                directory=project,
            )
            yield site

    # What is there

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client with Dagster's certificate."""
        with Client(f"unix:{self.folder / 'door'}", timeout=30.0, tls=files_in(self.dagster)) as client:
            yield client

    def certificates(self, node: str) -> list[dict[str, Any]]:
        """Those that a node was given, expired ones excepted."""
        listed = json.loads(self.command("node", "certificates", node, "--output", "json"))
        found: list[dict[str, Any]] = listed["certificates"] if isinstance(listed, dict) else listed
        return found

    def listeners(self, name: str) -> set[str]:
        """All TCP and UDP sockets that wait for others in a namespace, as `tcp 0.0.0.0:7171`."""
        line = [*self.inside(name), "ss", "-H", "-l", "-n", "-t", "-u"]
        listed = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
        fields = [each.split() for each in listed]
        return {f"{kind} {local}" for kind, _state, _received, _sent, local, *_ in fields}

    def events(self, name: str, *services: Child) -> list[dict[str, Any]]:
        """The log lines of that name; by default of the coordinator and all agents."""
        lines = [
            json.loads(line)
            for service in services or (self.coordinator, *self.agents.values())
            for line in service.output().splitlines()
            if line.startswith("{")
        ]
        return [line for line in lines if line.get("event") == name]

    @contextmanager
    def reissuing(self) -> Iterator[None]:
        """Makes the certificates of the coordinator and of Dagster anew all the time."""
        over = threading.Event()
        authority = AuthorityDirectory(self.ca)

        def reissue() -> None:
            while True:
                authority.issue(MAIN, self.hosts, self.lifetime, self.ca / "coordinator")
                authority.issue(DAGSTER, (), self.lifetime, self.dagster)
                if over.wait(self.lifetime / 3):
                    return

        thread = threading.Thread(target=reissue, name="reissuing")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            authority.issue(MAIN, self.hosts, 3600.0, self.ca / "coordinator")
            authority.issue(DAGSTER, (), 3600.0, self.dagster)


class Load:
    """Runs that are no Dagster, and say themselves what became of them.

    Attributes:
        run_ids: All that were launched.
    """

    def __init__(self, cluster: SecureCluster, client: Client) -> None:
        self.ledger = Ledger(cluster.folder)
        self.run_ids: list[str] = []
        self._client = client

    def launch(self, seconds: float, node: str = "") -> str:
        """Launches a run that works for so many seconds."""
        run_id = str(uuid.uuid4())
        spec = run_pb2.LaunchSpec(
            run_id=run_id,
            kind=run_pb2.LAUNCH_KIND_EXECUTE,
            worker_args="{}",
            deployment="load",
            environment=self.ledger.environment(seconds),
            code_origin=run_pb2.CodeOrigin(location="load", executable=str(self.ledger.worker)),
            requirements=placement_pb2.Requirements(node=node),
        )
        self._client.launch_run(spec)
        self.run_ids.append(run_id)
        return run_id

    @contextmanager
    def flowing(self, per_second: float) -> Iterator[None]:
        """Launches short runs all the time. A launch that fails, fails the block."""
        over = threading.Event()
        errors: list[BaseException] = []

        def flow() -> None:
            try:
                while not over.wait(1 / per_second):
                    self.launch(0.5)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=flow, name="load")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if errors:
            raise errors[0]

    def assert_undisturbed(self) -> None:
        """Raises AssertionError unless each run was started once and did all its work."""

        def ended() -> bool:
            over = {run.run_id for run in self._client.list_runs() if run.phase == run_pb2.PHASE_FINISHED}
            return over.issuperset(self.run_ids)

        wait_until(ended, "runs that do not end", timeout=LONG, poll=0.5)
        runs = {run.run_id: run for run in self._client.list_runs()}
        for run_id in self.run_ids:
            run, life = runs[run_id], self.ledger.life(run_id)
            assert run.outcome.kind == run_pb2.OUTCOME_KIND_SUCCEEDED, run
            assert (len(life.starts), life.overlaps, run.attempt) == (1, 0, 0), (life, run)


@contextmanager
def open_secure_cluster(folder: Path, network: Network, lifetime: float) -> Iterator[SecureCluster]:
    """A cluster that works, with all nodes in session; cleared away at the end of the block."""
    processes = Processes(folder)
    with ExitStack() as stack:
        stack.callback(processes.close)
        cluster = SecureCluster(folder, network, processes, lifetime)
        cluster.start_coordinator()
        for node in NODES:
            cluster.start_agent(node)
        yield cluster


def ports(listeners: Sequence[str] | set[str]) -> set[int]:
    """Their ports."""
    return {int(each.rpartition(":")[2]) for each in listeners}
