"""Who calls: read from the certificate of the connection, or from its being local."""

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
    """It cannot be told who calls; the message says why."""


class NotPermitted(Exception):
    """It is known who calls, and that caller may not do this; the message says what."""


@dataclass(frozen=True)
class Certificate:
    """What counts of a certificate that the authority has signed. Times are in seconds since 1970."""

    identity: Identity
    serial: str
    not_before: float
    not_after: float


@dataclass(frozen=True)
class Caller:
    """Who calls.

    Attributes:
        identity: Of its certificate, or `LOCAL`.
        serial: Of its certificate, in lower-case hexadecimal digits; empty for local callers.
        peer: Its address as gRPC writes it.
        not_before: When its certificate became valid, in seconds since 1970; an authority may date it back.
        not_after: When it expires; infinite for local callers.
    """

    identity: Identity
    serial: str
    peer: str
    not_before: float = -math.inf
    not_after: float = math.inf

    @property
    def role(self) -> Role:
        """What it is."""
        return self.identity.role

    def may_speak_for(self, node_id: str) -> bool:
        """Whether it is the agent of that node."""
        return self.role is Role.LOCAL or (self.role is Role.AGENT and self.identity.name == node_id)


def caller_of(context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
    """Reads who calls from the connection. What the caller may do, and its trust domain, the gate looks at.

    Raises:
        NotIdentified: The certificate names nobody, or more than one; or there is none on a connection that
            comes from elsewhere.
    """
    peer = context.peer()
    found = {key: list(values) for key, values in context.auth_context().items()}
    if found.get("transport_security_type") != [b"ssl"]:
        if not peer.startswith(_LOCAL_PEERS):
            raise NotIdentified("a connection without encryption comes from another machine")
        return Caller(LOCAL, "", peer)
    # Older versions of gRPC do not tell the version.
    if found.get("ssl_tls_version", [b"TLSv1.3"]) != [b"TLSv1.3"]:
        raise NotIdentified("the connection is older than TLS 1.3; upgrade the caller's gRPC")
    pem = found.get("x509_pem_cert")
    if not pem:
        raise NotIdentified("the connection shows no certificate")
    certificate = read_certificate(pem[0])
    return Caller(
        certificate.identity, certificate.serial, peer, certificate.not_before, certificate.not_after
    )


@functools.lru_cache(maxsize=20_000)
def read_certificate(pem: bytes) -> Certificate:
    """Reads what counts of a certificate whose signature was checked by the handshake.

    Raises:
        NotIdentified: It does not hold exactly one URI, or that is no identity, or it is a server's.
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
    """The handshake refuses it too where the extension is there; that it is there is looked at here."""
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise NotIdentified(
            "the certificate does not say that it is for clients (extended key usage)"
        ) from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in uses:
        raise NotIdentified("the certificate is not for clients (extended key usage)")
