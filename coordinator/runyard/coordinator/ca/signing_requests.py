"""Reading of certificate requests. Only the public key is used; every other field is ignored."""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from runyard.coordinator.ca.authority import PublicKey, UnusableKey, require_usable
from runyard.coordinator.core.errors import InvalidField

LARGEST: Final = 16 * 1024
"""Maximum characters of a request. One for an EC key has less than a thousand."""


@dataclass(frozen=True)
class SigningRequest:
    """A certificate request whose signature was verified.

    Attributes:
        key: The public key.
        key_digest: SHA-256 of that key, hexadecimal.
        digest: SHA-256 of the request, hexadecimal; equal for a repeated request.
    """

    key: PublicKey
    key_digest: str
    digest: str


def read_request(pem: str) -> SigningRequest:
    """Parse a PKCS #10 request.

    Raises:
        InvalidField: It is too large, not a request, signed with another key, or its key type is not allowed.
    """
    if len(pem) > LARGEST:
        raise InvalidField("csr_pem", f"has {len(pem)} characters; a request has at most {LARGEST}")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        signed = request.is_signature_valid
        key = require_usable(request.public_key())
    except UnusableKey as error:
        raise InvalidField("csr_pem", str(error)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidField("csr_pem", "is not a certificate request (PKCS #10) in PEM") from error
    if not signed:
        raise InvalidField("csr_pem", "is not signed with the key that it holds")
    return SigningRequest(
        key=key,
        key_digest=hashlib.sha256(_der(key)).hexdigest(),
        digest=hashlib.sha256(request.public_bytes(serialization.Encoding.DER)).hexdigest(),
    )


def _der(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
