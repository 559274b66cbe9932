"""JoinService: certificates for nodes that have none, on a separate server."""

from dataclasses import replace

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc

from runyard.coordinator.audit.audit import Audit, audited
from runyard.coordinator.audit.events import Actor, NodeJoined
from runyard.coordinator.auth.rates import Limit
from runyard.coordinator.auth.throttle import Throttle, network_of
from runyard.coordinator.ca.authority_directory import AuthorityError
from runyard.coordinator.ca.enrolment import Applicant, Enrolment
from runyard.coordinator.grpc.errors import Context, StatusOfErrors, Unavailable
from runyard.v1 import security_pb2, security_pb2_grpc

LARGEST_MESSAGE = 64 * 1024
"""Maximum bytes of a message on the server for joining. A request has about a thousand."""

JOIN_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 4),
    # Connections are short: a node that has joined uses the main server.
    ("grpc.max_connection_age_ms", 60_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    ("grpc.max_connection_idle_ms", 30_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.so_reuseport", 0),
)

MAX_CALLS = 200
"""Maximum number of concurrent calls; further ones get RESOURCE_EXHAUSTED, and agents retry."""

log = structlog.get_logger("runyard.coordinator.auth")


class JoinService(security_pb2_grpc.JoinServiceServicer):
    """See `runyard/v1/security.proto` for the contract."""

    def __init__(self, enrolment: Enrolment, throttle: Throttle, audit: Audit) -> None:
        self._enrolment = enrolment
        self._throttle = throttle
        self._audit = audit

    async def Join(self, request: security_pb2.JoinRequest, context: Context) -> security_pb2.JoinResponse:
        async with StatusOfErrors(context):
            applicant = Applicant(
                credential=request.token,
                csr_pem=request.csr_pem,
                node_id=request.node_id,
                cluster=request.cluster,
                peer=context.peer(),
            )
            self._throttle.require(Limit.JOIN, network_of(context.peer()))
            event = NodeJoined(
                by=Actor("unknown", context.peer()), node=applicant.node_id, cluster=applicant.cluster
            )
            with audited(self._audit, event) as entry:
                try:
                    granted = await self._enrolment.join(applicant)
                except AuthorityError as error:
                    log.error("authority_unusable", error=str(error))
                    raise Unavailable("the coordinator cannot sign now; its log has the reason") from error
                entry.amend(replace(event, token=granted.token_id, serial=granted.serial))
            return security_pb2.JoinResponse(
                certificate_pem=granted.certificate, authority_pem=granted.authority
            )


def join_server(
    enrolment: Enrolment, status: health.aio.HealthServicer, throttle: Throttle, audit: Audit
) -> grpc.aio.Server:
    """Return a server with JoinService and health. It does not listen yet.

    Args:
        enrolment: Issues the certificates.
        status: Health status of the server.
        throttle: Limits the rate of attempts.
        audit: Records all attempts.
    """
    server = grpc.aio.server(options=JOIN_SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    security_pb2_grpc.add_JoinServiceServicer_to_server(JoinService(enrolment, throttle, audit), server)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    return server
