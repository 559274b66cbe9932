"""The built-in certificate authority: one key and its certificate. Uses neither files nor a clock."""

import ipaddress
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runyard.common.security.identity import Identity, Role

AUTHORITY_LIFETIME: Final = timedelta(days=3650)

BACKDATED: Final = 60.0
"""Seconds by which a certificate is backdated, since clocks differ; less for a short-lived one."""

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
"""Key types that certificates are issued for."""

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)


class UnusableKey(ValueError):
    """No certificate is issued for keys of this type; the message names the allowed ones."""


@dataclass(frozen=True)
class Validity:
    """Validity period of a certificate, in seconds since 1970."""

    not_before: float
    not_after: float

    @classmethod
    def lasting(cls, lifetime: float, now: float, not_before: float = -math.inf) -> "Validity":
        """Return the validity of a certificate that is issued now.

        Args:
            lifetime: Seconds from now.
            now: Seconds since 1970.
            not_before: Earliest start, in whole seconds since 1970.
        """
        begin = math.floor(now - min(BACKDATED, lifetime / 10))  # certificates have whole seconds
        return cls(max(begin, not_before), math.ceil(now + lifetime))


@dataclass(frozen=True)
class Authority:
    """A signing key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, trust_domain: str, now: float) -> "Authority":
        """Return a new authority with a new key (EC P-256), constrained to one trust domain.

        Args:
            trust_domain: Trust domain of every identity that it signs.
            now: Seconds since 1970.
        """
        key = make_key()
        subject = _name(f"Runyard authority {_fingerprint_of_key(key)}", trust_domain)
        begin = _moment(now - BACKDATED)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.NameConstraints([x509.UniformResourceIdentifier(trust_domain)], None), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @property
    def trust_domain(self) -> str:
        """Trust domain of every identity that it signs."""
        (organization,) = self.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return str(organization.value)

    @property
    def name(self) -> str:
        """Short name; see `fingerprint`."""
        return fingerprint(self.certificate)

    def sign(
        self, key: PublicKey, identity: Identity, validity: Validity, hosts: Iterable[str] = ()
    ) -> x509.Certificate:
        """Return a certificate that binds an identity to a key.

        Args:
            key: The holder's public key.
            identity: The holder's identity.
            validity: Validity period; cut off at the end of this authority's own.
            hosts: Names and IP addresses of a coordinator.

        Raises:
            UnusableKey: No certificate is issued for keys of this type.
            ValueError: The identity belongs to another trust domain, or its role has no certificates.
        """
        if identity.trust_domain != self.trust_domain or identity.role is Role.LOCAL:
            raise ValueError(f"this authority signs for {self.trust_domain}, not for {identity}")
        require_usable(key)
        end = min(_moment(validity.not_after), self.certificate.not_valid_after_utc)
        names = [x509.UniformResourceIdentifier(identity.uri), *map(_host, hosts)]
        use = (
            ExtendedKeyUsageOID.SERVER_AUTH
            if identity.role is Role.COORDINATOR
            else ExtendedKeyUsageOID.CLIENT_AUTH
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(identity.name, self.trust_domain))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(validity.not_before))
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        return builder.sign(self.key, hashes.SHA256())


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key (EC P-256)."""
    return ec.generate_private_key(ec.SECP256R1())


def require_usable(key: object) -> PublicKey:
    """Return the key if its type is allowed.

    Raises:
        UnusableKey: It is not allowed.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise UnusableKey("the key must be EC P-256, EC P-384 or Ed25519")


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the first 16 hexadecimal digits of a certificate's SHA-256: enough for a short name."""
    return certificate.fingerprint(hashes.SHA256()).hex()[:16]


def serial_of(certificate: x509.Certificate) -> str:
    """Return the serial number in lower-case hexadecimal digits."""
    return format(certificate.serial_number, "x")


def to_pem(certificate: x509.Certificate) -> str:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def to_der(certificate: x509.Certificate) -> bytes:
    """Return a certificate in DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PEM (PKCS #8), without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _fingerprint_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]


def _name(common_name: str, organization: str) -> x509.Name:
    # RFC 5280, A.1: at most 64 characters in either.
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
