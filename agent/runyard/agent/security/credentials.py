"""The node's key and certificates on disk. They change as a set: a rename of one link.

tls/current        a link to the set in use
tls/00000001/      a set: key.pem, certificate.pem, authority.pem, and which token it goes back to
tls/joining/       a key that has no certificate yet, and the request for one
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
    """What was given or is on disk is no certificate for this node; the message says why."""


@dataclass(frozen=True)
class KeyAndRequest:
    """A new private key, and a request for a certificate for it, in PEM."""

    key: bytes
    request: str

    @classmethod
    def make(cls) -> "KeyAndRequest":
        """With a new key (EC P-256). The request says nothing of who asks: whoever signs knows."""
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
    """The certificate that the node has. Times are in seconds since 1970.

    Attributes:
        identity: As whom it is known.
        not_before: From when it holds.
        not_after: When it expires.
        token_id: The token that the node joined with, also after renewals.
    """

    identity: Identity
    not_before: float
    not_after: float
    token_id: str

    @property
    def lifetime(self) -> float:
        """Seconds for which it holds in all."""
        return self.not_after - self.not_before


class CredentialsDirectory:
    """The directory `tls` in the agent's state directory, which the agent alone writes to."""

    def __init__(self, state: Path) -> None:
        """Makes the directory if need be.

        Args:
            state: The agent's state directory.

        Raises:
            OSError: It cannot be made.
        """
        self._path = state / TLS_DIRECTORY
        self._path.mkdir(mode=0o700, exist_ok=True)
        self._path.chmod(0o700)

    def held(self) -> Held | None:
        """The certificate in use; None if there is none.

        Raises:
            UnusableCertificate: What is there is none.
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
        """The key to join with. The same over crashes, so that a lost answer can be asked for again.

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
        """Puts a new set in use, as a whole or not at all; on disk when it returns.

        Args:
            key: The private key, in PEM.
            certificate: Its certificate, in PEM.
            authority: Whom to trust, in PEM.
            token_id: The token that the node joined with.

        Raises:
            OSError: The disk refuses; what was in use still is.
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
        """Leaves the set in use, and the one before it, which somebody may be reading at this moment."""
        in_use = os.readlink(self._path / CURRENT)
        before = sorted(number for number in self._numbers() if number < int(in_use))[-1:]
        kept = {int(in_use), *before}
        for number in set(self._numbers()) - kept:
            shutil.rmtree(self._path / f"{number:08}", ignore_errors=True)
        shutil.rmtree(self._path / _JOINING, ignore_errors=True)


def read_certificate(pem: bytes, token_id: str) -> Held:
    """Reads what counts of the node's own certificate.

    Raises:
        UnusableCertificate: It is none, or names nobody.
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
    """Makes sure that what was given belongs together, before it replaces what works.

    Raises:
        UnusableCertificate: It does not.
    """
    try:
        private = serialization.load_pem_private_key(key, password=None)
        given = x509.load_pem_x509_certificate(certificate)
        trusted = x509.load_pem_x509_certificates(authority)
    except (ValueError, TypeError) as error:
        raise UnusableCertificate(f"the coordinator gave what is no certificate: {error}") from error
    if given.public_key() != private.public_key():
        raise UnusableCertificate("the coordinator gave a certificate for another key")
    if signer_of(given, trusted) is None:
        raise UnusableCertificate("the coordinator gave a certificate that its own authority did not sign")
