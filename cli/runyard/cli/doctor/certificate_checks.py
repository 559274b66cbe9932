"""The checks of `runyard doctor` on our own certificate: whose it is, and from when till when it holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

try:
    from cryptography import x509

    from runyard.common.security.certificates import holder_of, signer_of
except ImportError:  # the command line can do without
    x509 = None  # type: ignore[assignment]

from runyard.cli.doctor.findings import Finding, ok, problem, warning
from runyard.common.humanize import duration_words
from runyard.common.security.expiry import expires_soon
from runyard.common.security.identity import Role

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
        identity = holder_of(certificate)
    except ValueError as error:
        return [
            problem(
                SUBJECT,
                f"has no identity: {error}",
                "It needs one URI such as spiffe://runyard/client/NAME (`runyard ca issue`)",
            )
        ]
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends <= now:
        return [problem(SUBJECT, f"{identity} has expired {_words(now - ends)} ago", "Issue a new one")]
    if begins > now:
        return [
            problem(
                SUBJECT,
                f"{identity} is not valid yet, for another {_words(begins - now)}: "
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
    _, *others = x509.load_pem_x509_certificates(pem + authority)
    if signer_of(certificate, others) is None:
        return [
            warning(
                SUBJECT,
                f"{identity} is not of the authority that is trusted here",
                "The coordinator refuses it, unless it trusts that other authority too",
            )
        ]
    if expires_soon(begins.timestamp(), ends.timestamp(), now.timestamp()):
        return [warning(SUBJECT, f"{identity} expires in {_words(ends - now)}", "Issue a new one")]
    return [ok(SUBJECT, f"{identity}, for another {_words(ends - now)}")]


def _words(span: timedelta) -> str:
    return duration_words(span.total_seconds())
