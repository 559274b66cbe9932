"""SecurityService: agents renew their certificates; admins make tokens and revoke certificates."""

from dataclasses import replace

import structlog

from runyard.common.protobuf_time import to_seconds, to_timestamp
from runyard.coordinator.audit.audit import Audit, actor_of, audited
from runyard.coordinator.audit.events import (
    CertificateRenewed,
    CertificateRevoked,
    NodeRevoked,
    TokenCreated,
    TokenDeleted,
)
from runyard.coordinator.auth.callers import caller_of
from runyard.coordinator.auth.revoker import Revoker
from runyard.coordinator.ca.authority_directory import AuthorityError
from runyard.coordinator.ca.enrolment import Enrolment
from runyard.coordinator.ca.tokens import DEFAULT_TTL
from runyard.coordinator.grpc.errors import Context, NoAuthority, NotFound, Unavailable
from runyard.coordinator.store.ca_records import NodeCertificate, Token
from runyard.v1 import security_pb2, security_pb2_grpc

log = structlog.get_logger("runyard.coordinator.auth")


class SecurityService(security_pb2_grpc.SecurityServiceServicer):
    """See `runyard/v1/security.proto` for the contract of each method."""

    def __init__(self, enrolment: Enrolment | None, revoker: Revoker, audit: Audit) -> None:
        """Initialize.

        Args:
            enrolment: Issues certificates; None if another authority does.
            revoker: Revokes certificates.
            audit: Records the decisions.
        """
        self._audit = audit
        self._enrolment_or_none = enrolment
        self._expulsion = revoker

    async def RenewCertificate(
        self, request: security_pb2.RenewCertificateRequest, context: Context
    ) -> security_pb2.RenewCertificateResponse:
        caller = caller_of(context)
        event = CertificateRenewed(by=actor_of(context), node=caller.identity.name)
        with audited(self._audit, event) as entry:
            try:
                granted = await self._enrolment.renew(caller, request.csr_pem)
            except AuthorityError as error:
                log.error("authority_unusable", error=str(error))
                raise Unavailable("the coordinator cannot sign now; its log has the reason") from error
            entry.amend(replace(event, serial=granted.serial))
        return security_pb2.RenewCertificateResponse(
            certificate_pem=granted.certificate, authority_pem=granted.authority
        )

    async def CreateToken(
        self, request: security_pb2.CreateTokenRequest, context: Context
    ) -> security_pb2.CreateTokenResponse:
        ttl = to_seconds(request.ttl) if request.HasField("ttl") else DEFAULT_TTL
        maker = str(caller_of(context).identity)
        event = TokenCreated(by=actor_of(context), cluster=request.cluster, node=request.node_id)
        with audited(self._audit, event) as entry:
            token, join_token = await self._enrolment.create_token(
                request.cluster, request.node_id, ttl, request.uses or 1, maker
            )
            entry.amend(replace(event, token=token.token_id))
        return security_pb2.CreateTokenResponse(token=_token_view(token), text=join_token.text)

    async def ListTokens(
        self, request: security_pb2.ListTokensRequest, context: Context
    ) -> security_pb2.ListTokensResponse:
        return security_pb2.ListTokensResponse(tokens=map(_token_view, await self._enrolment.tokens()))

    async def DeleteToken(
        self, request: security_pb2.DeleteTokenRequest, context: Context
    ) -> security_pb2.DeleteTokenResponse:
        with audited(self._audit, TokenDeleted(by=actor_of(context), token=request.token_id)):
            if not await self._enrolment.delete_token(request.token_id):
                raise NotFound(f"there is no token {request.token_id[:64]!r}; `runyard token list` shows all")
        return security_pb2.DeleteTokenResponse()

    async def RevokeNode(
        self, request: security_pb2.RevokeNodeRequest, context: Context
    ) -> security_pb2.RevokeNodeResponse:
        event = NodeRevoked(by=actor_of(context), node=request.node_id, message=request.reason)
        with audited(self._audit, event):
            refused = await self._expulsion.revoke_node(request.node_id, request.reason)
        return security_pb2.RevokeNodeResponse(certificates=refused)

    async def RevokeCertificate(
        self, request: security_pb2.RevokeCertificateRequest, context: Context
    ) -> security_pb2.RevokeCertificateResponse:
        event = CertificateRevoked(by=actor_of(context), serial=request.serial, message=request.reason)
        with audited(self._audit, event):
            await self._expulsion.revoke_certificate(request.serial, request.reason)
        return security_pb2.RevokeCertificateResponse()

    async def ListCertificates(
        self, request: security_pb2.ListCertificatesRequest, context: Context
    ) -> security_pb2.ListCertificatesResponse:
        found = await self._expulsion.certificates(request.node_id)
        views = [_certificate_view(each, revoked) for each, revoked in found]
        return security_pb2.ListCertificatesResponse(certificates=views)

    @property
    def _enrolment(self) -> Enrolment:
        if self._enrolment_or_none is None:
            raise NoAuthority
        return self._enrolment_or_none


def _token_view(token: Token) -> security_pb2.Token:
    return security_pb2.Token(
        token_id=token.token_id,
        cluster=token.cluster,
        node_id=token.node_id,
        uses=token.uses,
        used=token.used,
        created_by=token.created_by,
        created_at=to_timestamp(token.created_at),
        expires_at=to_timestamp(token.expires_at),
    )


def _certificate_view(certificate: NodeCertificate, revoked: bool) -> security_pb2.Certificate:
    return security_pb2.Certificate(
        serial=certificate.serial,
        uri=certificate.uri,
        cluster=certificate.cluster,
        node_id=certificate.node_id,
        revoked=revoked,
        token_id=certificate.token_id,
        authority=certificate.authority,
        not_before=to_timestamp(certificate.not_before),
        not_after=to_timestamp(certificate.not_after),
    )
