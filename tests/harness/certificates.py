"""An authority for tests, and certificates of every kind, good and bad."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runyard.client import TlsFiles
from runyard.common.security.identity import Identity, Role
from runyard.common.transport.tls import TlsMaterial

HOUR = timedelta(hours=1)

COORDINATOR = Identity(Role.COORDINATOR, "main")
CLIENT = Identity(Role.CLIENT, "dagster")
OPERATOR = Identity(Role.OPERATOR, "ops")
ADMIN = Identity(Role.ADMIN, "root")

HOSTS = ("localhost", "127.0.0.1", "::1")
"""Where coordinators of tests are found."""


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs whatever it is asked to."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self._name, self._name, self._key.public_key())
        self._certificate = (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now - 24 * HOUR)
            .not_valid_after(now + 24 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        *uris: str,
        hosts: Sequence[str] = (),
        lifetime: timedelta = HOUR,
        begins: timedelta = -HOUR,
        uses: Sequence[x509.ObjectIdentifier] | None = None,
    ) -> Leaf:
        """Gives a certificate and its key.

        Args:
            *uris: The identities in it.
            hosts: Names and addresses at which its holder is found. With any, it is for servers.
            lifetime: From now; negative for one that has expired.
            begins: From now; positive for one that is not yet valid.
            uses: What it is for. By default servers or clients.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        names = [*map(x509.UniformResourceIdentifier, uris), *map(_host, hosts)]
        builder = x509.CertificateBuilder(self._name, x509.Name([]), key.public_key())
        builder = (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(min(now + begins, now + lifetime - HOUR))
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        wanted = (purpose,) if uses is None else tuple(uses)
        if wanted:
            builder = builder.add_extension(x509.ExtendedKeyUsage(wanted), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Leaf(
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def material(self, *uris: str, **wanted: Any) -> TlsMaterial:
        """As `issue`, together with this authority's certificate, for channels."""
        leaf = self.issue(*uris, **wanted)
        return TlsMaterial(self.pem, leaf.certificate, leaf.key)

    def files(self, folder: Path, leaf: Leaf) -> TlsFiles:
        """Writes a certificate, its key and this authority's certificate, over those that are there."""
        folder.mkdir(parents=True, exist_ok=True)
        files = files_in(folder)
        assert files.certificate is not None
        assert files.key is not None
        for path, content in (
            (files.authority, self.pem),
            (files.key, leaf.key),
            (files.certificate, leaf.certificate),
        ):
            replace(path, content)
        return files

    def coordinator(self, folder: Path, *hosts: str) -> TlsFiles:
        """Files of a coordinator on this machine, and at those hosts."""
        return self.files(folder, self.issue(COORDINATOR.uri, hosts=(*HOSTS, *hosts)))

    def holder(self, folder: Path, identity: Identity) -> TlsFiles:
        """Files of somebody who is no coordinator."""
        return self.files(folder, self.issue(identity.uri))

    def agent(self, folder: Path, node: str, cluster: str = "default") -> TlsFiles:
        """Files of an agent."""
        return self.holder(folder, agent(node, cluster))


def agent(node: str, cluster: str = "default") -> Identity:
    """Who the agent of a node is."""
    return Identity(Role.AGENT, node, cluster)


def files_in(folder: Path) -> TlsFiles:
    """Where an authority puts the files."""
    return TlsFiles(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")


def replace(path: Path, content: bytes) -> None:
    """Writes a file in one step, for its owner only."""
    coming = path.with_suffix(".new")
    coming.write_bytes(content)
    coming.chmod(0o600)
    coming.rename(path)


def tls_settings(files: TlsFiles) -> dict[str, str]:
    """As the settings of the services and of the launcher have them."""
    return {
        "authority": str(files.authority),
        "certificate": str(files.certificate),
        "key": str(files.key),
    }


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
