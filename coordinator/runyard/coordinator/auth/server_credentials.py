"""TLS credentials of the listening ports, always from the newest certificate files."""

import enum
import threading

import grpc
import structlog

from runyard.common.errors import InvalidTlsFiles
from runyard.common.transport.tls import TlsFiles, TlsMaterial, WatchedTls

log = structlog.get_logger("runyard.coordinator.auth")


class ClientCertificates(enum.Enum):
    """Client certificates that a port requires."""

    REQUIRED = "required"
    NOT_REQUESTED = "not requested"


def server_credentials(files: TlsFiles, from_clients: ClientCertificates) -> grpc.ServerCredentials:
    """Return the credentials of a listening port. Open connections keep the certificate they started with.

    Args:
        files: Certificate, key and trusted authority.
        from_clients: Client certificates that the port requires.

    Raises:
        InvalidTlsFiles: The files cannot be used.
    """
    watched = WatchedTls(files, lambda problem: log.error("certificates_not_renewed", problem=problem))
    newest = _Newest(watched, from_clients)
    return grpc.dynamic_ssl_server_credentials(
        newest.configuration,
        newest.fetch,  # type: ignore[arg-type]  # the stubs do not know that None means no change
        require_client_authentication=from_clients is ClientCertificates.REQUIRED,
    )


class _Newest:
    """The newest configuration. gRPC's threads call `fetch` for each handshake.

    A returned configuration replaces the one that concurrent handshakes are using, even if both are equal.
    Under hundreds of new connections that crashes the process. So `fetch` returns None unless the files
    changed.
    """

    def __init__(self, watched: WatchedTls, from_clients: ClientCertificates) -> None:
        self._watched = watched
        self._from_clients = from_clients
        self._lock = threading.Lock()
        self._made_of = watched.current()
        self.configuration = self._make(self._made_of)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the configuration if it is new. Never raises: that would break connections."""
        try:
            material = self._watched.current()
            with self._lock:
                if material == self._made_of:
                    return None
                configuration = self._make(material)
                self._made_of = material
        except Exception:
            log.exception("certificates_not_renewed")
            return None
        log.info("certificates_renewed", digest=material.digest[:16])
        return configuration

    def _make(self, material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
        if material.certificate is None or material.key is None:
            raise InvalidTlsFiles("tls: a server needs a certificate and its key; name both")
        roots = material.authority if self._from_clients is ClientCertificates.REQUIRED else None
        return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], roots)
