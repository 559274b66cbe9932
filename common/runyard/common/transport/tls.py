"""TLS files of one side: trusted authorities, certificate and key in PEM, read again when they change."""

import hashlib
import logging
import os
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from runyard.common.errors import InvalidTlsFiles

_LOG: Final = logging.getLogger("runyard.common.transport.tls")

# A certificate has one to four KB; a bundle of all public authorities about 250.
_LARGEST_FILE_BYTES: Final = 1024 * 1024

_TRIES: Final = 3

_Signature = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TlsMaterial:
    """Content of the files in PEM. Certificate and key are both present or both absent."""

    authority: bytes
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """Hash of the content, for comparison."""
        parts = (self.authority, self.certificate or b"", self.key or b"")
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials for channels that trust this authority and present this certificate."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


@dataclass(frozen=True)
class TlsFiles:
    """Paths of the PEM files.

    Attributes:
        authority: Certificates of the trusted authorities, concatenated.
        certificate: This side's certificate, followed by the intermediate ones. None: none is presented.
        key: The private key of that certificate, without a passphrase.

    Raises:
        InvalidTlsFiles: Only one of certificate and key is named.
    """

    authority: Path
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidTlsFiles("tls: a certificate needs its key, and a key its certificate; name both")

    def read(self) -> TlsMaterial:
        """Read the files and check that they belong together.

        Raises:
            InvalidTlsFiles: One cannot be read or has the wrong content, the key is not the certificate's,
                or others may read the key.
        """
        for _ in range(_TRIES):
            before = self.signature()
            material = self._read()
            if before == self.signature():
                return material
        raise InvalidTlsFiles(f"tls: {self.authority} or its companions change faster than they can be read")

    def signature(self) -> _Signature:
        """Return a value that differs after each change of a file; cheap enough for every use."""
        return tuple(_signature(path) for path in (self.authority, self.certificate, self.key) if path)

    def _read(self) -> TlsMaterial:
        authority = _read_pem("tls.authority", self.authority, b"CERTIFICATE")
        _check_authority(self.authority, authority)
        if self.certificate is None or self.key is None:
            return TlsMaterial(authority)
        _check_private(self.key)
        certificate = _read_pem("tls.certificate", self.certificate, b"CERTIFICATE")
        key = _read_pem("tls.key", self.key, b"PRIVATE KEY")
        _check_pair(self.certificate, self.key, key)
        return TlsMaterial(authority, certificate, key)


class WatchedTls:
    """Newest usable content of the files. Invalid content, such as half a file, is reported and ignored.

    Safe to share between threads, and has no lock that a fork could leave locked.
    """

    def __init__(self, files: TlsFiles, report: Callable[[str], None] = _LOG.warning) -> None:
        """Read the files.

        Args:
            files: Their paths.
            report: Called with the problem of each later content that is not usable.

        Raises:
            InvalidTlsFiles: They cannot be used.
        """
        self.files = files
        self._report = report
        self._seen = files.signature()
        self._material = files.read()

    def current(self) -> TlsMaterial:
        """Return the content to use: as before unless the files have new usable content. Never raises."""
        signature = self.files.signature()
        if signature != self._seen:
            self._seen = signature
            self._take_new()
        return self._material

    def _take_new(self) -> None:
        try:
            material = self.files.read()
        except InvalidTlsFiles as error:
            self._report(f"{error}; what was there before is used on")
        else:
            if material != self._material:
                self._material = material


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_mode)


def _read_pem(name: str, path: Path, kind: bytes) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidTlsFiles(
            f"{name}: {path} cannot be read ({error.strerror}); name a PEM file that this user may read"
        ) from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise InvalidTlsFiles(f"{name}: {path} is larger than 1 MiB; that is not a file of certificates")
    if b"-----BEGIN " not in content or kind not in content:
        raise InvalidTlsFiles(f"{name}: {path} holds no {kind.decode()} in PEM form")
    return content


def _check_private(key: Path) -> None:
    """Refuse a key that others may read. As in PostgreSQL, a group may read a key that root owns."""
    try:
        found = key.stat()
    except OSError:
        return  # reading it says what is wrong
    lent_by_root = found.st_uid == 0 and os.geteuid() != 0
    if stat.S_IMODE(found.st_mode) & (0o027 if lent_by_root else 0o077):
        raise InvalidTlsFiles(
            f"tls.key: others may read or change {key} (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run: chmod 600 {key}"
        )


def _check_authority(path: Path, content: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise InvalidTlsFiles(f"tls.authority: {path} holds no usable certificates ({error})") from error


def _check_pair(certificate: Path, key: Path, content: bytes) -> None:
    if b"ENCRYPTED" in content:
        raise InvalidTlsFiles(
            f"tls.key: {key} needs a passphrase, which a service cannot be asked for; "
            f"run: openssl pkey -in {key} -out NEW.pem"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise InvalidTlsFiles(
                f"tls: {key} is not the key of {certificate}; name the files that were made together"
            ) from error
        raise InvalidTlsFiles(f"tls: {certificate} or {key} cannot be used ({error})") from error
    except OSError as error:
        raise InvalidTlsFiles(f"tls: {certificate} or {key} cannot be read ({error.strerror})") from error
