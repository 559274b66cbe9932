"""Reasons why a TLS handshake with the coordinator failed, from the texts of gRPC, BoringSSL and OpenSSL.

The client, the agent and `runyard doctor` share this table. docs/security.md has the coordinator's side.
"""

from dataclasses import dataclass
from typing import Final

DOCTOR: Final = "`runyard doctor` has details"


@dataclass(frozen=True)
class HandshakeError:
    """A reason and its remedy, each for people."""

    message: str
    remedy: str


_CLOCKS: Final = "Compare `date -u` on both machines; then have the certificate renewed"

_WRONG_NAME: Final = HandshakeError(
    "the coordinator's certificate is not for this name or address",
    "Dial a name in its certificate, or have it issued with this one (`runyard ca issue`)",
)
_WRONG_AUTHORITY: Final = HandshakeError(
    "the coordinator's certificate is of an authority that is not trusted here",
    "Name by --tls-authority what the coordinator's own `tls.authority` holds; during a rotation, both",
)
_NOT_A_SERVER: Final = HandshakeError(
    "the coordinator's certificate is not for servers: it belongs to another role",
    "Check the address, and which certificate the coordinator's `tls.certificate` names",
)
_PLAIN_TEXT: Final = HandshakeError(
    "the coordinator speaks plain text, and certificates were given for it",
    "Give the coordinator its `tls`, or leave the --tls-... options and variables out",
)

_ERRORS: Final = (
    ("Hostname Verification Check failed", _WRONG_NAME),
    ("Hostname mismatch", _WRONG_NAME),
    ("IP address mismatch", _WRONG_NAME),
    (
        "certificate has expired",
        HandshakeError(
            "the coordinator's certificate has expired, or this machine's clock is ahead",
            _CLOCKS,
        ),
    ),
    (
        "certificate is not yet valid",
        HandshakeError(
            "the coordinator's certificate is not valid yet: its clock is ahead, or this machine's is behind",
            _CLOCKS,
        ),
    ),
    ("unable to get local issuer certificate", _WRONG_AUTHORITY),
    ("self-signed certificate", _WRONG_AUTHORITY),
    ("self signed certificate", _WRONG_AUTHORITY),
    ("certificate signature failure", _WRONG_AUTHORITY),
    ("unsupported certificate purpose", _NOT_A_SERVER),
    ("unsuitable certificate purpose", _NOT_A_SERVER),
    ("WRONG_VERSION_NUMBER", _PLAIN_TEXT),
    ("RECORD_LAYER_FAILURE", _PLAIN_TEXT),
    # Alerts of the coordinator (RFC 8446, section 6.2).
    (
        "CERTIFICATE_REQUIRED",
        HandshakeError(
            "the coordinator requires a certificate, and none was given",
            "Give --tls-certificate and --tls-key",
        ),
    ),
    (
        "ALERT_UNKNOWN_CA",
        HandshakeError(
            "the coordinator does not trust the authority of our certificate",
            "Have it issued by the coordinator's own authority",
        ),
    ),
    (
        "ALERT_CERTIFICATE_EXPIRED",
        HandshakeError("the coordinator considers our certificate expired", _CLOCKS),
    ),
    (
        "ALERT_UNSUPPORTED_CERTIFICATE",
        HandshakeError("our certificate is not for clients", "Use a client's or an operator's"),
    ),
    (
        "handshake failed",
        HandshakeError("no encrypted connection could be made", "See the coordinator's standard error"),
    ),
)
"""Errors by a part of their text, the more specific first."""

_HUNG_UP: Final = HandshakeError(
    "the coordinator closed the connection in the handshake: it may require a certificate, or refuse ours",
    "See the coordinator's standard error: `Handshake failed with error ...`",
)


def handshake_error(text: str) -> HandshakeError | None:
    """Return the reason of a failed handshake; None if the text is of another failure.

    Args:
        text: Details of a call that ended UNAVAILABLE, or the message of an `ssl.SSLError`.
    """
    normal = _normalized(text)
    if normal.startswith("FAILED_TO_CONNECT") and normal.endswith("SOCKET_CLOSED"):
        return _HUNG_UP
    return next((error for part, error in _ERRORS if _normalized(part) in normal), None)


def explained(details: str) -> str:
    """Return the details of a failed call, with the reason in words if a handshake failed."""
    error = handshake_error(details)
    return details if error is None else f"{details} ({error.message}; {DOCTOR})"


def _normalized(text: str) -> str:
    return text.strip().rstrip("]").upper().replace(" ", "_")
