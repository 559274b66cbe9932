"""A stand-in for what the coordinator keeps of tokens and certificates: real gRPC, all in memory."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc

from runyard.v1 import security_pb2, security_pb2_grpc

TEXT = "ryj1.00c0ffee0000.secret.certificate"


class FakeSecurity(security_pb2_grpc.SecurityServiceServicer):
    """Takes whoever calls for an admin."""

    def __init__(self) -> None:
        self.tokens: list[security_pb2.Token] = []
        self.certificates: list[security_pb2.Certificate] = []
        self.created: list[security_pb2.CreateTokenRequest] = []
        self.revoked: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        security_pb2_grpc.add_SecurityServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def start(self) -> Self:
        """Serves from now on."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Serves no more."""
        self._server.stop(None).wait()

    def give(self, node: str, **fields: object) -> security_pb2.Certificate:
        """A certificate that a node has."""
        given = security_pb2.Certificate(node_id=node, cluster="east", **fields)  # type: ignore[arg-type]
        given.not_before.FromSeconds(int(time.time()) - 3600)
        given.not_after.FromSeconds(int(time.time()) + 7200)
        self.certificates.append(given)
        return given

    # SecurityService

    def RenewCertificate(
        self, request: security_pb2.RenewCertificateRequest, context: grpc.ServicerContext
    ) -> security_pb2.RenewCertificateResponse:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "only agents renew")

    def CreateToken(
        self, request: security_pb2.CreateTokenRequest, context: grpc.ServicerContext
    ) -> security_pb2.CreateTokenResponse:
        if request.cluster == "west":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this coordinator signs no certificates")
        self.created.append(request)
        token = security_pb2.Token(
            token_id=f"00c0ffee000{len(self.tokens)}",
            cluster=request.cluster,
            node_id=request.node_id,
            uses=request.uses,
            created_by="local",
        )
        token.created_at.FromSeconds(int(time.time()) - 60)
        token.expires_at.FromSeconds(int(time.time()) + request.ttl.seconds)
        self.tokens.insert(0, token)
        return security_pb2.CreateTokenResponse(token=token, text=TEXT)

    def ListTokens(
        self, request: security_pb2.ListTokensRequest, context: grpc.ServicerContext
    ) -> security_pb2.ListTokensResponse:
        return security_pb2.ListTokensResponse(tokens=self.tokens)

    def DeleteToken(
        self, request: security_pb2.DeleteTokenRequest, context: grpc.ServicerContext
    ) -> security_pb2.DeleteTokenResponse:
        kept = [token for token in self.tokens if token.token_id != request.token_id]
        if kept == self.tokens:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no token {request.token_id}")
        self.tokens = kept
        return security_pb2.DeleteTokenResponse()

    def RevokeNode(
        self, request: security_pb2.RevokeNodeRequest, context: grpc.ServicerContext
    ) -> security_pb2.RevokeNodeResponse:
        held = [each for each in self.certificates if each.node_id == request.node_id]
        for each in held:
            each.revoked = True
        return security_pb2.RevokeNodeResponse(certificates=len(held))

    def RevokeCertificate(
        self, request: security_pb2.RevokeCertificateRequest, context: grpc.ServicerContext
    ) -> security_pb2.RevokeCertificateResponse:
        self.revoked.append(request.serial)
        return security_pb2.RevokeCertificateResponse()

    def ListCertificates(
        self, request: security_pb2.ListCertificatesRequest, context: grpc.ServicerContext
    ) -> security_pb2.ListCertificatesResponse:
        found = [each for each in self.certificates if request.node_id in ("", each.node_id)]
        return security_pb2.ListCertificatesResponse(certificates=found)
