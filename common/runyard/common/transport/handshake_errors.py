"""Why no encrypted connection could be made, in words: from what gRPC says in the details of UNAVAILABLE."""

from typing import Final

DOCTOR: Final = "`runyard doctor` looks closer"

_WORDS: Final = (
    ("Hostname Verification Check failed", "its certificate is not for this name or address"),
    ("certificate has expired", "its certificate has expired, or this machine's clock is wrong"),
    ("certificate is not yet valid", "its certificate is not valid yet: one of the clocks is wrong"),
    ("unable to get local issuer certificate", "its certificate is of an authority that is not trusted here"),
    ("self-signed certificate", "its certificate is of an authority that is not trusted here"),
    ("self signed certificate", "its certificate is of an authority that is not trusted here"),
    ("certificate signature failure", "its certificate is of another authority of the same name"),
    ("unsupported certificate purpose", "its certificate is not for servers: that is no coordinator"),
    ("WRONG_VERSION_NUMBER", "it speaks plain text, and certificates were given for it"),
    ("TLSV1_ALERT_UNKNOWN_CA", "it does not trust the authority of our certificate"),
    ("CERTIFICATE_REQUIRED", "it wants a certificate, and none was given"),
    ("handshake failed", "no encrypted connection could be made"),
)
"""What gRPC and BoringSSL write, the more telling first."""


def why_no_handshake(details: str) -> str:
    """The reason in words; empty if the details are not of a handshake.

    Args:
        details: Of a call that ended UNAVAILABLE.
    """
    folded = details.lower()
    return next((words for text, words in _WORDS if text.lower() in folded), "")
