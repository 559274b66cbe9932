"""Signatures of launches: keys, their files, and the signed bytes. Needs `cryptography`."""

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from runyard.common.errors import RunyardError
from runyard.common.service.durable import sync_directory

CONTEXT: Final = b"runyard launch statement 1\0"
"""Prefix of the signed bytes, so that a signature made for another purpose never fits a launch."""

PRIVATE_KEY: Final = "launch-signing.key"
PUBLIC_KEY: Final = "launch-signing.pub"

_KIND: Final = "ed25519:"
_RAW_BYTES: Final = 32  # RFC 8032
_KEY_ID_DIGITS: Final = 16


class UnusableKey(RunyardError):
    """A key cannot be read or made; the message names the file and the remedy."""


@dataclass(frozen=True)
class PublicKey:
    """Public key that verifies signatures of launches."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """Short name of the key, for people and for look-up."""
        return hashlib.sha256(self.raw).hexdigest()[:_KEY_ID_DIGITS]

    def __str__(self) -> str:
        return _KIND + base64.b64encode(self.raw).decode()

    def has_signed(self, payload: bytes, signature: bytes) -> bool:
        """True if this key made the signature of this payload."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, CONTEXT + payload)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """Private key that signs launches. Its holder can run commands on every node that trusts it."""

    _key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The public key, for nodes."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, payload: bytes) -> bytes:
        """Return the signature of a payload."""
        return self._key.sign(CONTEXT + payload)


def public_key_of(text: str) -> PublicKey:
    """Parse a public key as its file holds it.

    Raises:
        UnusableKey: The text is not a public key.
    """
    kind, _, encoded = text.strip().partition(":")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if f"{kind}:" != _KIND or len(raw) != _RAW_BYTES:
        raise UnusableKey(
            f"{text[:60]!r} is not a public key; `runyard signing-key show` prints it: {_KIND}..."
        )
    return PublicKey(raw)


def read_public_key(written: str) -> PublicKey:
    """Read a public key from a setting.

    Args:
        written: The key itself, as in its file, or the path of that file.

    Raises:
        UnusableKey: The setting is neither, or others may write to the file.
    """
    if written.startswith(_KIND):
        return public_key_of(written)
    path = Path(written)
    text = _read(path, forbidden=stat.S_IWGRP | stat.S_IWOTH, remedy="chmod go-w")
    try:
        return public_key_of(text.decode(errors="replace"))
    except UnusableKey as error:
        raise UnusableKey(f"{path}: {error}") from None


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key.

    Raises:
        UnusableKey: The file cannot be read, is not a key, or others may read it too.
    """
    text = _read(path, forbidden=stat.S_IRWXG | stat.S_IRWXO, remedy="chmod 600")
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError):  # the latter for one that is encrypted
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableKey(
            f"{path} is not an Ed25519 key in PEM without a password; make one: runyard signing-key create"
        )
    return SigningKey(key)


def public_half(path: Path) -> PublicKey:
    """Return the public key in a file with either half of a key, or in the directory with both.

    Raises:
        UnusableKey: The key does not exist or cannot be read.
    """
    path = path / PUBLIC_KEY if path.is_dir() else path
    if _read(path, forbidden=0, remedy="").startswith(b"-----BEGIN"):
        return read_signing_key(path).public
    return read_public_key(str(path))


def create_signing_key(directory: Path) -> SigningKey:
    """Create a key and write each half to a file. Only the owner can read the private one.

    Args:
        directory: Directory of the files; created if necessary.

    Raises:
        UnusableKey: A key exists already, or the files cannot be written.
    """
    key = SigningKey(Ed25519PrivateKey.generate())
    private = key._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(directory / PRIVATE_KEY, private, 0o600)
        _write_new(directory / PUBLIC_KEY, f"{key.public}\n".encode(), 0o644)
        sync_directory(directory)
    except FileExistsError as error:
        raise UnusableKey(f"{error.filename} is there already; choose another directory") from None
    except OSError as error:
        raise UnusableKey(f"{error.filename or directory}: cannot be written ({error.strerror})") from error
    return key


def _read(path: Path, forbidden: int, remedy: str) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except OSError as error:
        raise UnusableKey(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if mode & forbidden:
        raise UnusableKey(f"{path} has mode {stat.S_IMODE(mode):04o}, too open for a key: {remedy} {path}")
    return text


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
