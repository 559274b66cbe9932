"""Records of authorities, and of certificates that were issued on the command line."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from runyard.common.security.identity import Identity
from runyard.coordinator.ca.authority import Authority, serial_of


@dataclass(frozen=True)
class Issued:
    """A certificate that was issued on the command line. Times are in seconds since 1970."""

    serial: str
    uri: str
    hosts: tuple[str, ...]
    not_before: float
    not_after: float
    authority: str
    directory: str


@dataclass(frozen=True)
class TrustedAuthority:
    """A trusted authority. Times are in seconds since 1970."""

    name: str
    signs: bool
    not_before: float
    not_after: float


def issued_to(
    certificate: x509.Certificate, identity: Identity, hosts: tuple[str, ...], by: Authority, directory: Path
) -> Issued:
    """Return the record of a new certificate.

    Args:
        certificate: The certificate.
        identity: Identity of its holder.
        hosts: Names and IP addresses in it.
        by: The authority that signed it.
        directory: Directory that it is written to.
    """
    return Issued(
        serial=serial_of(certificate),
        uri=identity.uri,
        hosts=hosts,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        authority=by.name,
        directory=str(directory.resolve()),
    )
