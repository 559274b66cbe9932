"""The node's key and certificates on disk. They change together, by renaming one symbolic link.

tls/current        a link to the set in use
tls/00000001/      a set: key.pem, certificate.pem, authority.pem, and the ID of the token that it is based on
tls/joining/       a key without a certificate, and the request for one
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from runyard.agent.config.join import AUTHORITY, CERTIFICATE, CURRENT, KEY, TLS_DIRECTORY
from runyard.common.security.certificates import holder_of, signer_of
from runyard.common.security.identity import Identity
from runyard.common.service.durable import sync_directory, write_durably
from runyard.common.service.failpoints import failpoint

_JOINING: Final = "joining"
_REQUEST: Final = "request.pem"
_TOKEN_ID: Final = "token-id"  # noqa: S105 - the name of a file


class UnusableCertificate(Exception):
    """A received or stored certificate cannot be used for this node; the message names the reason."""


@dataclass(frozen=True)
class KeyAndRequest:
    """A new private key, and a request for a certificate for it, in PEM."""

    key: bytes
    request: str

    @classmethod
    def make(cls) -> "KeyAndRequest":
        """Make a key (EC P-256) and a request. The request names no subject: the signer knows it."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        )
        return cls(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            request.public_bytes(serialization.Encoding.PEM).decode(),
        )


@dataclass(frozen=True)
class Held:
    """The node's certificate. Times are Unix times in seconds.

    Attributes:
        identity: Identity that the certificate proves.
        not_before: Start of its validity.
        not_after: End of its validity.
        token_id: Token that the node joined with; kept by renewals.
    """

    identity: Identity
    not_before: float
    not_after: float
    token_id: str

    @property
    def lifetime(self) -> float:
        """Length of its validity in seconds."""
        return self.not_after - self.not_before


class CredentialsDirectory:
    """Directory `tls` in the agent's state directory. Only the agent writes to it."""

    def __init__(self, state: Path) -> None:
        """Make the directory if it does not exist.

        Args:
            state: The agent's state directory.

        Raises:
            OSError: It cannot be made.
        """
        self._path = state / TLS_DIRECTORY
        self._path.mkdir(mode=0o700, exist_ok=True)
        self._path.chmod(0o700)

    def held(self) -> Held | None:
        """Return the certificate in use; None if there is none.

        Raises:
            UnusableCertificate: The file does not hold a certificate.
            OSError: It cannot be read.
        """
        current = self._path / CURRENT
        try:
            pem = (current / CERTIFICATE).read_bytes()
        except FileNotFoundError:
            return None
        token_file = current / _TOKEN_ID
        return read_certificate(pem, token_file.read_text().strip() if token_file.exists() else "")

    def joining(self) -> KeyAndRequest:
        """Return the key to join with. It survives crashes, so that a lost answer can be requested again.

        Raises:
            OSError: The disk refuses.
        """
        directory = self._path / _JOINING
        try:
            return KeyAndRequest((directory / KEY).read_bytes(), (directory / _REQUEST).read_text())
        except FileNotFoundError:
            pass
        directory.mkdir(mode=0o700, exist_ok=True)
        made = KeyAndRequest.make()
        write_durably(directory / KEY, made.key)
        failpoint("agent.after_joining_key")
        write_durably(directory / _REQUEST, made.request.encode())
        sync_directory(self._path)
        failpoint("agent.after_joining_request")
        return made

    def install(self, key: bytes, certificate: bytes, authority: bytes, token_id: str) -> None:
        """Replace the set in use atomically; it is on disk when this returns.

        Args:
            key: The private key, in PEM.
            certificate: Its certificate, in PEM.
            authority: Trusted certificates, in PEM.
            token_id: The token that the node joined with.

        Raises:
            OSError: The disk refuses; the old set stays in use.
        """
        name = self._next_name()
        directory = self._path / name
        directory.mkdir(mode=0o700)
        for file, content in (
            (KEY, key),
            (CERTIFICATE, certificate),
            (AUTHORITY, authority),
            (_TOKEN_ID, token_id.encode()),
        ):
            write_durably(directory / file, content)
        sync_directory(self._path)
        failpoint("agent.before_certificate_switch")
        self._switch_to(name)
        failpoint("agent.after_certificate_switch")
        self._clear_away()

    def _switch_to(self, name: str) -> None:
        aside = self._path / f".{CURRENT}.new"
        aside.unlink(missing_ok=True)
        aside.symlink_to(name)
        aside.rename(self._path / CURRENT)
        sync_directory(self._path)

    def _next_name(self) -> str:
        return f"{max(self._numbers(), default=0) + 1:08}"

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self._path.iterdir() if path.name.isdecimal()]

    def _clear_away(self) -> None:
        """Delete all sets except the one in use and the one before, which may be being read."""
        in_use = os.readlink(self._path / CURRENT)
        before = sorted(number for number in self._numbers() if number < int(in_use))[-1:]
        kept = {int(in_use), *before}
        for number in set(self._numbers()) - kept:
            shutil.rmtree(self._path / f"{number:08}", ignore_errors=True)
        shutil.rmtree(self._path / _JOINING, ignore_errors=True)


def read_certificate(pem: bytes, token_id: str) -> Held:
    """Parse the node's own certificate.

    Raises:
        UnusableCertificate: It cannot be parsed, or holds no identity.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        identity = holder_of(certificate)
    except ValueError as error:
        raise UnusableCertificate(f"the certificate of this node cannot be read: {error}") from error
    return Held(
        identity,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        token_id,
    )


def require_fitting(key: bytes, certificate: bytes, authority: bytes) -> None:
    """Check that a received set is consistent before it replaces the old one.

    Raises:
        UnusableCertificate: It is not.
    """
    try:
        private = serialization.load_pem_private_key(key, password=None)
        given = x509.load_pem_x509_certificate(certificate)
        trusted = x509.load_pem_x509_certificates(authority)
    except (ValueError, TypeError) as error:
        raise UnusableCertificate(f"the coordinator sent an invalid certificate: {error}") from error
    if given.public_key() != private.public_key():
        raise UnusableCertificate("the coordinator sent a certificate for another key")
    if signer_of(given, trusted) is None:
        raise UnusableCertificate("the coordinator sent a certificate that its own authority did not sign")
