"""What gRPC writes when a handshake fails, turned into who it was and why. Pure: works on text alone.

gRPC tells nobody but standard error, as in `I1123 12:16:02.07 5846 ssl_transport_security.cc:2563] text`.
With GRPC_TRACE=handshaker the same comes once more with the peer, after a few lines for each handshake.
"""

import re
from dataclasses import dataclass
from typing import Final

BEGINNING: Final = re.compile(
    r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (?P<place>[\w.-]+:\d+)\] (?P<text>.*)", re.S
)
"""How gRPC begins what it writes, up to the next such line."""

_SSL_ERROR: Final = re.compile(
    r"SSL_ERROR_\w+: error:\w+:[\w ]+ routines:OPENSSL_internal:(\w+)(?:: ([^:\n]+))?"
)
_PEER: Final = re.compile(r"endpoint_peer_address=([^,}]+)")
_STATUS: Final = re.compile(r"error=(?!OK\b)(\w+: [^\n]*)")

WORDS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "HTTP_REQUEST": "it spoke plain HTTP, not TLS",
    "HTTPS_PROXY_REQUEST": "it took this for an HTTP proxy",
    "WRONG_VERSION_NUMBER": "it spoke plain text or an unknown protocol, not TLS",
    "UNSUPPORTED_PROTOCOL": "it wanted a version of TLS that is too old",
    "NO_SHARED_CIPHER": "it offered no cipher of ours",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refused our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, or the clocks differ",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refused our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "our certificate is not for servers",
}
"""By the name of the error in BoringSSL's err_data.txt."""

_SELF_SIGNED: Final = "its certificate is signed by itself, not by an authority that is trusted here"

CERTIFICATE_WORDS: Final = {
    "certificate has expired": "its certificate has expired, or the clocks differ",
    "certificate is not yet valid": "its certificate is not valid yet: the clocks differ",
    "unable to get local issuer certificate": "its certificate is of an authority that is not trusted here",
    "self-signed certificate": _SELF_SIGNED,
    "self signed certificate": _SELF_SIGNED,
    "certificate signature failure": "its certificate is of another authority with the name of ours",
    "unsupported certificate purpose": "its certificate is for servers, not for clients",
}
"""By what X509_verify_cert_error_string says."""


@dataclass(frozen=True)
class Failure:
    """A handshake that failed.

    Attributes:
        reason: Why, in words.
        peer: With whom, as gRPC writes addresses; empty if it did not say.
    """

    reason: str
    peer: str = ""


@dataclass(frozen=True)
class Noise:
    """What gRPC writes of handshakes and nobody wants to read."""


@dataclass(frozen=True)
class Foreign:
    """What has nothing to do with handshakes."""


def read_record(record: str) -> Failure | Noise | Foreign:
    """Reads what gRPC wrote from one beginning to the next.

    Args:
        record: One line, or several.
    """
    begun = BEGINNING.match(record)
    if begun is None:
        return Foreign()
    place, text = begun["place"].partition(":")[0], begun["text"]
    if place == "ssl_transport_security.cc" and text.startswith("Handshake failed"):
        return Failure(_reason(text))
    if place == "handshaker.cc":
        status = _STATUS.search(text)
        if status is None or "CallNextHandshaker" not in text:
            return Noise()
        peer = _PEER.search(text)
        return Failure(_reason(status[1]), peer[1] if peer else "")
    if place == "trace.cc" or (place == "channel_trace.h" and "handshake manager" in text):
        return Noise()
    return Foreign()


def _reason(text: str) -> str:
    error = _SSL_ERROR.search(text)
    if error is not None:
        name, detail = error[1], (error[2] or "").strip()
        if detail in CERTIFICATE_WORDS:
            return CERTIFICATE_WORDS[detail]
        if name == "CERTIFICATE_VERIFY_FAILED":
            return f"its certificate was refused: {detail}"
        return WORDS.get(name, name.replace("_", " ").lower())
    if "Socket closed" in text:
        return "it hung up before the handshake was over; it may not trust our certificate"
    if "Endpoint closing" in text:
        return "it did not finish the handshake in time"
    return text[:200]
