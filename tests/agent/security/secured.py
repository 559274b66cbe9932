"""A coordinator with its own authority on loopback, over TLS, and agents that join it by token."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.small_workers import RHYTHM, Plant
from cryptography import x509
from harness.services import ProcessCluster, Service
from harness.waiting import wait_until

from runyard.client import Client, TlsFiles
from runyard.common.security.identity import Identity, Role
from runyard.coordinator.ca.authority_directory import AuthorityDirectory

DAY = 86_400.0
HOSTS = ("localhost", "127.0.0.1")


class SecuredPlant(Plant):
    """As `Plant`, where everybody has a certificate or gets one."""

    def __init__(self, services: ProcessCluster) -> None:
        super().__init__(services)
        self._serials: dict[str, set[str]] = {}
        services.address = f"127.0.0.1:{free_port()}"
        self.join_address = f"127.0.0.1:{free_port()}"
        self.authority = AuthorityDirectory(services.folder / "ca")
        self.authority.init("runyard")
        self.issue(Identity(Role.COORDINATOR, "main"), self.authority.path / "coordinator", *HOSTS)
        self.issue(Identity(Role.ADMIN, "ada"), self.authority.path / "admin")
        self.issue(Identity(Role.CLIENT, "dagster"), services.folder / "dagster")

    def issue(self, identity: Identity, folder: Path, *hosts: str) -> TlsFiles:
        """Makes a certificate as `runyard ca issue` does."""
        self.authority.issue(identity, hosts, DAY, folder)
        return files_in(folder)

    # Services

    def start_coordinator(self, **settings: object) -> Service:
        """A coordinator that serves, and lets nodes join."""
        own = self.authority.path / "coordinator"
        secured = {
            "tls": {
                "authority": str(self.authority.path / "authority.pem"),
                "certificate": str(own / "certificate.pem"),
                "key": str(own / "key.pem"),
            },
            "ca_directory": str(self.authority.path),
            "join_listen": self.join_address,
        }
        coordinator = self.cluster.coordinator(settings={**RHYTHM, **secured, **settings})
        coordinator.wait_for_event("ready")
        return coordinator

    def agent(self, node: str = "node-a", token: str = "", **settings: object) -> Service:
        """An agent that has just been started, with a token in its file."""
        file = self.cluster.folder / f"{node}.token"
        if token:
            file.write_text(f"{token}\n")
        join = {"address": self.join_address, "token_file": str(file)}
        joined = {"join": join, "cluster": "east", "machine_state_command": ["true"]}
        return self.cluster.agent(node, settings={**joined, **settings})

    def start_agent(self, node: str = "node-a", *, state: str = "", **settings: object) -> Service:
        """An agent that has joined with a token of its own, and is in session."""
        agent = self.agent(node, self.token(node), **settings)
        agent.wait_for_event("ready")
        return agent

    # Who gives orders

    def client(self) -> Client:
        """A client with a certificate for clients."""
        return Client(self.cluster.address, tls=files_in(self.cluster.folder / "dagster"))

    def admin(self) -> Client:
        """A client with a certificate for admins."""
        return Client(self.cluster.address, tls=files_in(self.authority.path / "admin"))

    def token(self, node: str = "", *, cluster: str = "east", uses: int = 1) -> str:
        """A new token."""
        with self.admin() as admin:
            return admin.security.create_token(cluster, node_id=node, uses=uses).text

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the admin's."""
        files = files_in(self.authority.path / "admin")
        options = ["--address", self.cluster.address, "--tls-authority", str(files.authority)]
        options += ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
        line = [sys.executable, "-m", "runyard.cli.main", *options, *argv]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    # What nodes have

    def credentials(self, node: str = "node-a") -> Path:
        """The directory with the node's key and certificate."""
        return self.cluster.folder / node / "tls" / "current"

    def certificate(self, node: str = "node-a") -> x509.Certificate:
        """The node's certificate."""
        return x509.load_pem_x509_certificate((self.credentials(node) / "certificate.pem").read_bytes())

    def until_serials(self, count: int, node: str = "node-a", within: float = 90.0) -> set[str]:
        """The serial numbers of the node's certificates, as soon as it was given so many."""

        def given() -> set[str] | None:
            with self.admin() as admin:
                found = {each.serial for each in admin.security.list_certificates(node)}
            self._serials.setdefault(node, set()).update(found)
            return self._serials[node] if len(self._serials[node]) >= count else None

        return wait_until(given, lambda: self._serials, timeout=within, poll=0.5)


def files_in(folder: Path) -> TlsFiles:
    """Where an authority puts the files."""
    return TlsFiles(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def events_of(service: Service) -> list[dict[str, Any]]:
    """All that a service has logged."""
    return [json.loads(line) for line in service.output().splitlines() if line.startswith("{")]
