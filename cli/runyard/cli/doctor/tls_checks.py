"""The checks of `runyard doctor` on certificates: whether each side takes the other's.

It makes the connection by itself, with Python's own TLS: gRPC says little of why a handshake failed.
"""

import socket
import ssl
from collections.abc import Iterator
from typing import Final

from runyard.cli.doctor.certificate_checks import examine_certificate
from runyard.cli.doctor.findings import Finding, Level, ok, problem
from runyard.client.errors import InvalidTlsFiles
from runyard.common.transport.address import Address, HostPort, UnixSocket
from runyard.common.transport.handshake_errors import handshake_error
from runyard.common.transport.tls import TlsFiles

SUBJECT: Final = "certificates"

_TIMEOUT_SECONDS: Final = 3.0

# RFC 9113, section 3.4: what a client begins with; here with an empty SETTINGS frame.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

# RFC 8446, section 5.1: the first byte of an alert.
_TLS_ALERT: Final = 0x15

_REFUSED: Final = "the coordinator refuses our certificate"
_ITS_LOG: Final = "The coordinator's standard error has the reason: `Handshake failed with error ...`"


def examine_tls(address: Address, files: TlsFiles) -> Iterator[Finding]:
    """Checks all that a connection with these certificates needs.

    Args:
        address: Of the coordinator.
        files: The certificates to use there.
    """
    try:
        material = files.read()
    except InvalidTlsFiles as error:
        yield problem(SUBJECT, str(error), "Mend the file that it names")
        return
    if material.certificate is not None:
        found = examine_certificate(material.certificate, material.authority)
        yield from found
        if any(finding.level is Level.PROBLEM for finding in found):
            return
    yield from _examine_connection(address, files)


def speaks_tls(address: Address) -> bool:
    """True if plain text is answered there with a TLS alert, or with a closed connection."""
    try:
        with _connect(address) as connection:
            connection.sendall(_PREFACE)
            answer = connection.recv(1)
    except OSError:
        return False
    return not answer or answer[0] == _TLS_ALERT


def _examine_connection(address: Address, files: TlsFiles) -> Iterator[Finding]:
    try:
        with _connect(address) as connection, _shake_hands(connection, address, files) as secured:
            yield _accepted(secured)
    except ssl.SSLError as error:
        yield _failed(error, address)
    except OSError:
        return  # nothing listens there; the check of the coordinator reports it


def _connect(address: Address) -> socket.socket:
    if isinstance(address, UnixSocket):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_TIMEOUT_SECONDS)
        connection.connect(address.path)
        return connection
    return socket.create_connection((address.host, address.port), timeout=_TIMEOUT_SECONDS)


def _shake_hands(connection: socket.socket, address: Address, files: TlsFiles) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(files.authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    if files.certificate is not None:
        context.load_cert_chain(files.certificate, files.key)
    name = address.host if isinstance(address, HostPort) else "localhost"
    return context.wrap_socket(connection, server_hostname=name)


def _accepted(secured: ssl.SSLSocket) -> Finding:
    """In TLS 1.3 the server checks the client certificate last: its first bytes show the result."""
    try:
        secured.sendall(_PREFACE)
        if secured.recv(1):
            return ok(SUBJECT, "each side takes the other's")
    except ssl.SSLError as error:
        if known := handshake_error(str(error)):
            return problem(SUBJECT, known.message, known.remedy)
        return problem(SUBJECT, f"{_REFUSED} ({error.reason or error})", _ITS_LOG)
    except OSError:
        pass
    return problem(SUBJECT, f"{_REFUSED}: it hung up", _ITS_LOG)


def _failed(error: ssl.SSLError, address: Address) -> Finding:
    if known := handshake_error(str(error)):
        return problem(SUBJECT, f"{address}: {known.message}", known.remedy)
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the coordinator's certificate was refused ({error.verify_message})"
        return problem(SUBJECT, text, "Have it issued again (`runyard ca issue`)")
    reason = error.reason or str(error)
    return problem(SUBJECT, f"no encrypted connection to {address}: {reason}", _ITS_LOG)
