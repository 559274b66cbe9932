"""Identity of a caller: from the certificate of its connection, or `local` on this machine."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from runyard.common.security.certificates import holder_of
from runyard.common.security.identity import LOCAL, Identity, Role

# How gRPC writes the other side of a connection that stays on this machine.
_LOCAL_PEERS: Final = ("unix:", "ipv4:127.", "ipv6:[::1]:", "ipv6:%5B::1%5D:", "ipv6:[::ffff:127.")


class NotIdentified(Exception):
    """The caller cannot be identified; the message has the reason."""


class NotPermitted(Exception):
    """The caller is identified but has no permission; the message names the permission."""


@dataclass(frozen=True)
class Certificate:
    """Fields of a certificate that authentication needs. Times are in seconds since 1970."""

    identity: Identity
    serial: str
    not_before: float
    not_after: float


@dataclass(frozen=True)
class Caller:
    """Caller of a method.

    Attributes:
        identity: Identity in its certificate, or `LOCAL`.
        serial: Serial number of its certificate in lower-case hexadecimal digits; empty for local callers.
        peer: Its address as gRPC writes it.
        not_before: Start of validity of its certificate, in seconds since 1970; may lie before its creation.
        not_after: End of validity, in seconds since 1970; infinite for local callers.
    """

    identity: Identity
    serial: str
    peer: str
    not_before: float = -math.inf
    not_after: float = math.inf

    @property
    def role(self) -> Role:
        """Role of the identity."""
        return self.identity.role

    def may_speak_for(self, node_id: str) -> bool:
        """True if the caller is the agent of that node, or local."""
        return self.role is Role.LOCAL or (self.role is Role.AGENT and self.identity.name == node_id)


def caller_of(context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
    """Return the caller of a connection. Does not check its trust domain or permissions.

    Raises:
        NotIdentified: The certificate does not name exactly one identity, or a connection from another
            machine has no certificate.
    """
    peer = context.peer()
    found = {key: list(values) for key, values in context.auth_context().items()}
    if found.get("transport_security_type") != [b"ssl"]:
        if not peer.startswith(_LOCAL_PEERS):
            raise NotIdentified("a connection without encryption comes from another machine")
        return Caller(LOCAL, "", peer)
    # Older versions of gRPC do not report the version of TLS.
    if found.get("ssl_tls_version", [b"TLSv1.3"]) != [b"TLSv1.3"]:
        raise NotIdentified("the connection is older than TLS 1.3; upgrade the caller's gRPC")
    pem = found.get("x509_pem_cert")
    if not pem:
        raise NotIdentified("the connection has no client certificate")
    certificate = read_certificate(pem[0])
    return Caller(
        certificate.identity, certificate.serial, peer, certificate.not_before, certificate.not_after
    )


@functools.lru_cache(maxsize=20_000)
def read_certificate(pem: bytes) -> Certificate:
    """Return the fields of a certificate. The handshake has verified its signature.

    Raises:
        NotIdentified: It does not hold exactly one URI, the URI is not an identity, or it is not for clients.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        identity = holder_of(certificate)
    except ValueError as error:
        raise NotIdentified(f"the certificate has no identity: {error}") from error
    _require_client_use(certificate)
    return Certificate(
        identity,
        format(certificate.serial_number, "x"),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _require_client_use(certificate: x509.Certificate) -> None:
    """Require the extension: the handshake checks its value, but accepts certificates without it."""
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise NotIdentified(
            "the certificate has no extended key usage; it must allow client authentication"
        ) from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in uses:
        raise NotIdentified("the certificate is not for clients (extended key usage)")
