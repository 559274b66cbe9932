"""Whose a certificate is, and who has signed it. Needs `cryptography`, which clients can do without."""

from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from runyard.common.security.identity import Identity, InvalidIdentity, parse_identity


def holder_of(certificate: x509.Certificate) -> Identity:
    """Reads the one URI of a certificate.

    Raises:
        InvalidIdentity: There is none, or another number of them, or it is no identity.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise InvalidIdentity(f"it names nobody ({error})") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise InvalidIdentity(f"it must name one identity, as a URI; it names {len(uris)}")
    return parse_identity(uris[0])


def signer_of(
    certificate: x509.Certificate, authorities: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    """The one of these authorities that has signed a certificate. None: none of them."""
    return next((each for each in authorities if _has_signed(each, certificate)), None)


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
