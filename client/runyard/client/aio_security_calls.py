"""What admins ask of a coordinator: `AsyncClient.security`, the mirror of `security_calls.py`."""

# ruff: noqa: ASYNC109 - these timeouts are deadlines that travel with the call, so the coordinator knows them too

from __future__ import annotations

from runyard.client.aio_calls import AsyncCalls
from runyard.client.security_calls import token_request
from runyard.v1 import security_pb2


class AsyncSecurityCalls:
    """Tokens and certificates; every method means what it means in `SecurityCalls`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def create_token(
        self,
        cluster: str,
        *,
        node_id: str = "",
        ttl: float | None = None,
        uses: int = 1,
        timeout: float | None = None,
    ) -> security_pb2.CreateTokenResponse:
        """See `SecurityCalls.create_token`."""
        request = token_request(cluster, node_id, ttl, uses)
        return await self._calls.once("CreateToken", lambda to: to.security.CreateToken, request, timeout)

    async def list_tokens(self, timeout: float | None = None) -> list[security_pb2.Token]:
        """See `SecurityCalls.list_tokens`."""
        request = security_pb2.ListTokensRequest()
        response = await self._calls.once("ListTokens", lambda to: to.security.ListTokens, request, timeout)
        return list(response.tokens)

    async def delete_token(self, token_id: str, timeout: float | None = None) -> None:
        """See `SecurityCalls.delete_token`."""
        request = security_pb2.DeleteTokenRequest(token_id=token_id)
        await self._calls.once("DeleteToken", lambda to: to.security.DeleteToken, request, timeout)

    async def revoke_node(self, node_id: str, *, reason: str = "", timeout: float | None = None) -> int:
        """See `SecurityCalls.revoke_node`."""
        request = security_pb2.RevokeNodeRequest(node_id=node_id, reason=reason)
        response = await self._calls.once("RevokeNode", lambda to: to.security.RevokeNode, request, timeout)
        return response.certificates

    async def revoke_certificate(
        self, serial: str, *, reason: str = "", timeout: float | None = None
    ) -> None:
        """See `SecurityCalls.revoke_certificate`."""
        request = security_pb2.RevokeCertificateRequest(serial=serial, reason=reason)
        await self._calls.once(
            "RevokeCertificate", lambda to: to.security.RevokeCertificate, request, timeout
        )

    async def list_certificates(
        self, node_id: str = "", timeout: float | None = None
    ) -> list[security_pb2.Certificate]:
        """See `SecurityCalls.list_certificates`."""
        request = security_pb2.ListCertificatesRequest(node_id=node_id)
        response = await self._calls.once(
            "ListCertificates", lambda to: to.security.ListCertificates, request, timeout
        )
        return list(response.certificates)
