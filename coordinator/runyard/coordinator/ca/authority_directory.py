"""The built-in authority on disk: its keys, the trusted certificates, and a list of issued ones.

    authority.pem      certificates of the trusted authorities; the first one signs
    keys/NAME.pem      their private keys
    issued.jsonl       one line for each certificate that was issued on the command line
    coordinator/       certificate, key and trusted authorities of the coordinator
    admin/             the same for the first admin

The order in `authority.pem` decides which authority signs, so one rename starts a rotation and one ends it.
"""

import json
import os
import stat
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from runyard.common.security.certificates import holder_of, signer_of
from runyard.common.security.identity import Identity, parse_identity
from runyard.common.service.durable import sync_directory, write_durably
from runyard.coordinator.ca.authority import Authority, Validity, fingerprint, key_to_pem, make_key, to_pem
from runyard.coordinator.ca.issued import Issued, TrustedAuthority, issued_to

_TRUSTED: Final = "authority.pem"
_CERTIFICATE: Final = "certificate.pem"
_KEY: Final = "key.pem"
_ISSUED: Final = "issued.jsonl"

_DAY: Final = 86_400.0

COORDINATOR: Final = "coordinator"
ADMIN: Final = "admin"


class AuthorityError(Exception):
    """The directory of the authority cannot be used; the message has the reason and a remedy."""


class AuthorityDirectory:
    """The directory of one authority. It is read again when it changes, so services need no restart."""

    def __init__(self, path: Path) -> None:
        """Initialize without reading anything.

        Args:
            path: The directory, created by `init`.
        """
        self.path = path
        self._seen: tuple[int, ...] = ()
        self._trusted: tuple[x509.Certificate, ...] = ()
        self._signing: Authority | None = None

    # Contents

    @property
    def signing(self) -> Authority:
        """The authority that signs.

        Raises:
            AuthorityError: The directory cannot be used.
        """
        self._refresh()
        assert self._signing is not None, "read by _refresh"
        return self._signing

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """Certificates of all trusted authorities; the first one signs.

        Raises:
            AuthorityError: The directory cannot be used.
        """
        self._refresh()
        return self._trusted

    @property
    def trusted_pem(self) -> str:
        """`trusted` in PEM."""
        return "".join(map(to_pem, self.trusted))

    def authorities(self) -> list[TrustedAuthority]:
        """Return the trusted authorities, to show to people.

        Raises:
            AuthorityError: The directory cannot be used.
        """
        return [
            TrustedAuthority(
                fingerprint(each),
                number == 0,
                each.not_valid_before_utc.timestamp(),
                each.not_valid_after_utc.timestamp(),
            )
            for number, each in enumerate(self.trusted)
        ]

    def issuer_of(self, pem: bytes) -> x509.Certificate:
        """Return the trusted authority that signed a certificate.

        Raises:
            AuthorityError: None of them did, or the directory cannot be used.
        """
        signer = signer_of(x509.load_pem_x509_certificate(pem), self.trusted)
        if signer is None:
            raise AuthorityError(
                f"the coordinator's own certificate was not signed by the authority in {self.path}; "
                "issue one with `runyard ca issue --coordinator NAME`"
            )
        return signer

    def require_fit(self, trust_domain: str, own_certificate: bytes) -> None:
        """Check that this authority can enrol nodes.

        Args:
            trust_domain: Trust domain in the coordinator's settings.
            own_certificate: Certificate that the coordinator presents, in PEM.

        Raises:
            AuthorityError: The directory cannot be used, the trust domain differs, or the authority did not
                sign that certificate.
        """
        if self.signing.trust_domain != trust_domain:
            raise AuthorityError(
                f"trust_domain is {trust_domain!r}, but the authority in {self.path} signs for "
                f"{self.signing.trust_domain!r}; change the setting"
            )
        self.issuer_of(own_certificate)

    def issued(self) -> list[Issued]:
        """Return the certificates that were issued on the command line, oldest first.

        Raises:
            AuthorityError: The list cannot be read.
        """
        path = self.path / _ISSUED
        try:
            lines = path.read_text().splitlines() if path.exists() else []
            records = [json.loads(line) for line in lines]
            return [Issued(**{**record, "hosts": tuple(record["hosts"])}) for record in records]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise AuthorityError(f"{path} cannot be read ({error}); restore it from a backup") from error

    # Commands

    def init(self, trust_domain: str) -> None:
        """Create the directory with a new authority.

        Args:
            trust_domain: Trust domain of all identities.

        Raises:
            AuthorityError: An authority exists already, or the directory cannot be written.
        """
        if (self.path / _TRUSTED).exists():
            raise AuthorityError(
                f"{self.path} holds an authority already; `runyard ca rotate` replaces it without a break"
            )
        try:
            for directory in (self.path, self.path / "keys"):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_written(error) from error
        self._check_private(self.path)
        self._trust_first(Authority.make(trust_domain, time.time()), ())

    def rotate(self) -> None:
        """Create a new authority that signs from now on; the old one is trusted until `finish`.

        Raises:
            AuthorityError: A rotation is in progress, or the directory cannot be used.
        """
        before = self.trusted
        if len(before) > 1:
            raise AuthorityError(
                "a rotation is in progress: two authorities are trusted; "
                "end it with `runyard ca rotate --finish`"
            )
        self._trust_first(Authority.make(self.signing.trust_domain, time.time()), before)

    def finish(self) -> tuple[x509.Certificate, ...]:
        """End a rotation: certificates of the old authority are no longer valid.

        Returns:
            The authorities that are no longer trusted.

        Raises:
            AuthorityError: No rotation is in progress, or the directory cannot be used.
        """
        signing, *dropped = self.trusted
        if not dropped:
            raise AuthorityError(
                "no rotation is in progress: one authority is trusted; `runyard ca rotate` starts one"
            )
        for directory in (COORDINATOR, ADMIN):
            last = self._last_issued_into(self.path / directory)
            if last is not None and last.authority != self.signing.name:
                self._repeat(last)
        self._trust([signing])
        for old in dropped:
            self._key_path(old).unlink(missing_ok=True)
        return tuple(dropped)

    def issue(self, identity: Identity, hosts: tuple[str, ...], lifetime: float, directory: Path) -> Issued:
        """Create a key and a certificate in a directory.

        Args:
            identity: Identity of the holder.
            hosts: Names and IP addresses of a coordinator.
            lifetime: Seconds.
            directory: Directory for `key.pem`, `certificate.pem` and `authority.pem`; created if missing.

        Raises:
            AuthorityError: The directory holds the key of another identity, or a directory cannot be used.
        """
        authority, trusted = self.signing, self.trusted_pem
        self._check_may_replace(directory, identity)
        key = make_key()
        validity = Validity.lasting(lifetime, time.time())
        try:
            certificate = authority.sign(key.public_key(), identity, validity, hosts)
        except ValueError as error:
            raise AuthorityError(str(error)) from error
        issued = issued_to(certificate, identity, hosts, authority, directory)
        try:
            self._note(issued)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(directory / _KEY, key_to_pem(key))
            write_durably(directory / _CERTIFICATE, to_pem(certificate).encode())
            write_durably(directory / _TRUSTED, trusted.encode())
        except OSError as error:
            raise AuthorityError(f"{directory} cannot be written ({error.strerror})") from error
        return issued

    def renew_coordinator(self, now: float) -> None:
        """Renew the certificate in `coordinator` if a third of its lifetime or less is left.

        Args:
            now: Seconds since 1970.

        Raises:
            AuthorityError: The directory cannot be used.
        """
        last = self._last_issued_into(self.path / COORDINATOR)
        if last is None or last.not_after - now > (last.not_after - last.not_before) / 3:
            return
        # During a rotation some peers do not trust the signing authority yet.
        if len(self.trusted) == 1 or last.not_after - now < _DAY:
            self._repeat(last)

    # Reading

    def _refresh(self) -> None:
        try:
            found = (self.path / _TRUSTED).stat()
        except OSError as error:
            raise AuthorityError(
                f"{self.path} holds no authority ({error.strerror}); "
                f"make one with `runyard ca init {self.path}`"
            ) from error
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen == self._seen:
            return
        self._check_private(self.path)
        trusted = self._read_trusted()
        self._signing = Authority(self._read_key(trusted[0]), trusted[0])
        self._trusted = trusted
        self._seen = seen

    def _read_trusted(self) -> tuple[x509.Certificate, ...]:
        path = self.path / _TRUSTED
        try:
            return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise AuthorityError(f"{path} cannot be read ({error}); restore it from a backup") from error

    def _read_key(self, certificate: x509.Certificate) -> ec.EllipticCurvePrivateKey:
        path = self._key_path(certificate)
        try:
            self._check_private(path)
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise AuthorityError(f"{path} cannot be read ({error}); restore it from a backup") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise AuthorityError(f"{path} is not the key of the authority; restore it from a backup")
        return key

    def _check_private(self, path: Path) -> None:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            right = 700 if path.is_dir() else 600
            raise AuthorityError(
                f"others may read or change {path} (mode {mode:04o}), and impersonate anyone with it; "
                f"run: chmod {right} {path}"
            )

    def _key_path(self, certificate: x509.Certificate) -> Path:
        return self.path / "keys" / f"{fingerprint(certificate)}.pem"

    # Writing

    def _trust_first(self, authority: Authority, others: tuple[x509.Certificate, ...]) -> None:
        try:
            write_durably(self._key_path(authority.certificate), key_to_pem(authority.key))
        except OSError as error:
            raise self._not_written(error) from error
        self._trust([authority.certificate, *others])

    def _trust(self, certificates: list[x509.Certificate]) -> None:
        content = "".join(map(to_pem, certificates)).encode()
        try:
            for directory in (COORDINATOR, ADMIN):
                if (self.path / directory).is_dir():
                    write_durably(self.path / directory / _TRUSTED, content)
            write_durably(self.path / _TRUSTED, content)
        except OSError as error:
            raise self._not_written(error) from error

    def _last_issued_into(self, directory: Path) -> Issued | None:
        """Return the record of the last certificate in a directory."""
        here = str(directory.resolve())
        return next((each for each in reversed(self.issued()) if each.directory == here), None)

    def _repeat(self, issued: Issued) -> None:
        """Issue a certificate again, with the same lifetime."""
        lifetime = issued.not_after - issued.not_before
        self.issue(parse_identity(issued.uri), issued.hosts, lifetime, Path(issued.directory))

    def _check_may_replace(self, directory: Path, identity: Identity) -> None:
        """Allow to replace a certificate only by a newer one of the same holder."""
        path = directory / _CERTIFICATE
        if not path.exists() and not (directory / _KEY).exists():
            return
        try:
            same = holder_of(x509.load_pem_x509_certificate(path.read_bytes())) == identity
        except (OSError, ValueError):
            same = False
        if not same:
            raise AuthorityError(f"{directory} holds the key of another identity; choose another directory")

    def _note(self, issued: Issued) -> None:
        line = f"{json.dumps(asdict(issued))}\n".encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with open(os.open(self.path / _ISSUED, flags, 0o600), "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self.path)

    def _not_written(self, error: OSError) -> AuthorityError:
        return AuthorityError(f"{self.path} cannot be written ({error.strerror}); choose another directory")
