"""Holder and issuer of a certificate. Needs `cryptography`, which clients do not require."""

from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from runyard.common.security.identity import Identity, InvalidIdentity, parse_identity


def holder_of(certificate: x509.Certificate) -> Identity:
    """Return the identity in a certificate's only URI.

    Raises:
        InvalidIdentity: The certificate does not have exactly one URI, or it is not an identity.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise InvalidIdentity(f"it names no identity ({error})") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise InvalidIdentity(f"it must name one identity, as a URI; it names {len(uris)}")
    return parse_identity(uris[0])


def signer_of(
    certificate: x509.Certificate, authorities: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    """Return the authority that has signed a certificate; None if none of these has."""
    return next((each for each in authorities if _has_signed(each, certificate)), None)


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
