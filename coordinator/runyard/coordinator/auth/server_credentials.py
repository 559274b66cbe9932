"""What the coordinator shows to those who connect, and whom it lets in: by the newest files at all times."""

import enum
import threading

import grpc
import structlog

from runyard.common.errors import InvalidTlsFiles
from runyard.common.transport.tls import TlsFiles, TlsMaterial, WatchedTls

log = structlog.get_logger("runyard.coordinator.auth")


class ClientCertificates(enum.Enum):
    """Whether those who connect must show a certificate of our authority."""

    REQUIRED = "required"
    NOT_ASKED_FOR = "not asked for"


def server_credentials(files: TlsFiles, from_clients: ClientCertificates) -> grpc.ServerCredentials:
    """Credentials of a listening port. Connections that are open go on with what they were opened with.

    Args:
        files: With a certificate and its key.
        from_clients: What is asked of those who connect.

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
    """The newest configuration, made anew when the files have changed. gRPC's threads ask for each handshake.

    What they are given takes the place of what other handshakes are just using, even if it is the same one;
    where strangers open connections by the hundred, that ends the process. So mostly it is None.
    """

    def __init__(self, watched: WatchedTls, from_clients: ClientCertificates) -> None:
        self._watched = watched
        self._from_clients = from_clients
        self._lock = threading.Lock()
        self._made_of = watched.current()
        self.configuration = self._make(self._made_of)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration if it is new. Never raises: that would end the connection, and the next."""
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
