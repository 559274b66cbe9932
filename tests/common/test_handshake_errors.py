"""The reasons of failed handshakes, in words."""

import pytest

from runyard.common.transport.handshake_errors import explained, handshake_error

CONNECT = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:7171: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{CONNECT}Socket closed", "it may require a certificate, or refuse ours"),
        (f"{CONNECT}Ssl handshake failed: SSL_ERROR_SSL: ...: certificate has expired", "has expired"),
        (f"{CONNECT}Hostname Verification Check failed.", "not for this name or address"),
        ("CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate", "not trusted here"),
        (
            "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required",
            "requires a certificate",
        ),
        (
            "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca",
            "does not trust the authority of our certificate",
        ),
        (
            "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired",
            "considers our certificate expired",
        ),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "speaks plain text"),
        (
            f"{CONNECT}Ssl handshake failed: SSL_ERROR_SSL: something new",
            "no encrypted connection could be made",
        ),
    ],
)
def test_text_of_a_tls_library_becomes_a_reason(text: str, message: str) -> None:
    error = handshake_error(text)
    assert error is not None
    assert message in error.message


@pytest.mark.parametrize("text", ["", f"{CONNECT}Connection refused", "Socket closed", "GOAWAY received"])
def test_other_failures_are_not_handshakes(text: str) -> None:
    assert handshake_error(text) is None
    assert explained(text) == text
