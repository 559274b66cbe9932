"""The checks of `runyard doctor` on our own certificate: whose it is, and from when till when it holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
except ImportError:  # the command line can do without
    x509 = None  # type: ignore[assignment]

from runyard.client.cli.findings import Finding, ok, problem, warning
from runyard.client.expiry import expires_soon
from runyard.client.identity import InvalidIdentity, Role, parse_identity

SUBJECT: Final = "our certificate"

_ROLES: Final = (Role.CLIENT, Role.OPERATOR, Role.ADMIN)
"""Those that have business with the command line."""


def examine_certificate(pem: bytes, authority: bytes, now: datetime | None = None) -> list[Finding]:
    """Checks a certificate by itself.

    Args:
        pem: The certificate, and those between it and its authority.
        authority: The certificates that are trusted here.
        now: The time. None: this moment.
    """
    if x509 is None:
        return []  # the connection is tried all the same
    now = now or datetime.now(UTC)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        identity = parse_identity(uri)
    except (ValueError, x509.ExtensionNotFound, InvalidIdentity) as error:
        return [
            problem(
                SUBJECT,
                f"names nobody: {error}",
                "It needs one URI such as spiffe://runyard/client/NAME (`runyard ca issue`)",
            )
        ]
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends <= now:
        return [problem(SUBJECT, f"{identity} has expired {_ago(now - ends)} ago", "Have it issued anew")]
    if begins > now:
        return [
            problem(
                SUBJECT,
                f"{identity} is not valid yet, for another {_ago(begins - now)}: "
                "this machine's clock is behind, or the authority's is ahead",
                "Compare `date -u` on both machines",
            )
        ]
    if identity.role not in _ROLES:
        return [
            problem(
                SUBJECT,
                f"belongs to the {identity.role} {identity}",
                "Launching and looking need a client's, an operator's or an admin's",
            )
        ]
    if not _is_issued_by(x509.load_pem_x509_certificates(pem + authority)):
        return [
            warning(
                SUBJECT,
                f"{identity} is not of the authority that is trusted here",
                "The coordinator refuses it, unless it trusts that other authority too",
            )
        ]
    if expires_soon(begins.timestamp(), ends.timestamp(), now.timestamp()):
        return [warning(SUBJECT, f"{identity} expires in {_ago(ends - now)}", "Have it issued anew")]
    return [ok(SUBJECT, f"{identity}, for another {_ago(ends - now)}")]


def _is_issued_by(chain: Sequence[x509.Certificate]) -> bool:
    """Whether the first certificate was signed by one of the others."""
    first, *others = chain
    for other in others:
        try:
            first.verify_directly_issued_by(other)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _ago(span: timedelta) -> str:
    if span >= timedelta(days=2):
        return f"{span.days} days"
    if span >= timedelta(hours=2):
        return f"{span // timedelta(hours=1)} hours"
    return f"{max(1, span // timedelta(minutes=1))} minutes"
