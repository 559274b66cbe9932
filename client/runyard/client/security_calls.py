"""Calls for admins: `Client.security`."""

from __future__ import annotations

from runyard.client.calls import Calls
from runyard.common.protobuf_time import to_duration
from runyard.v1 import security_pb2


class SecurityCalls:
    """Tokens and certificates. All need the role `admin`; `AccessDenied` says that the caller has another."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create_token(
        self,
        cluster: str,
        *,
        node_id: str = "",
        ttl: float | None = None,
        uses: int = 1,
        timeout: float | None = None,
    ) -> security_pb2.CreateTokenResponse:
        """Create a token with which nodes may join. Its secret is in this answer only.

        Args:
            cluster: Which nodes join with it.
            node_id: The only node that may. Empty: any that is not taken.
            ttl: Seconds for which it can be used. None: 15 minutes.
            uses: How many nodes may join with it.
            timeout: Seconds for the call. None: the client's.

        Raises:
            InvalidRequest: A name or number cannot be used.
            Refused: The coordinator has no authority of its own.
        """
        request = token_request(cluster, node_id, ttl, uses)
        return self._calls.once("CreateToken", lambda to: to.security.CreateToken, request, timeout)

    def list_tokens(self, timeout: float | None = None) -> list[security_pb2.Token]:
        """Gives the tokens that are kept, the newest first, without their secrets."""
        request = security_pb2.ListTokensRequest()
        return list(
            self._calls.once("ListTokens", lambda to: to.security.ListTokens, request, timeout).tokens
        )

    def delete_token(self, token_id: str, timeout: float | None = None) -> None:
        """Makes a token worthless.

        Raises:
            NotFound: There is none of that ID.
        """
        request = security_pb2.DeleteTokenRequest(token_id=token_id)
        self._calls.once("DeleteToken", lambda to: to.security.DeleteToken, request, timeout)

    def revoke_node(self, node_id: str, *, reason: str = "", timeout: float | None = None) -> int:
        """Refuses every certificate that a node has, and closes its session. Its runs are not presumed dead.

        Args:
            node_id: The node.
            reason: For people.
            timeout: Seconds for the call. None: the client's.

        Returns:
            How many unexpired certificates that the coordinator gave out are refused by this.
        """
        request = security_pb2.RevokeNodeRequest(node_id=node_id, reason=reason)
        return self._calls.once(
            "RevokeNode", lambda to: to.security.RevokeNode, request, timeout
        ).certificates

    def revoke_certificate(self, serial: str, *, reason: str = "", timeout: float | None = None) -> None:
        """Refuses one certificate, of whatever role.

        Args:
            serial: Its serial number in hexadecimal digits.
            reason: For people.
            timeout: Seconds for the call. None: the client's.
        """
        request = security_pb2.RevokeCertificateRequest(serial=serial, reason=reason)
        self._calls.once("RevokeCertificate", lambda to: to.security.RevokeCertificate, request, timeout)

    def list_certificates(
        self, node_id: str = "", timeout: float | None = None
    ) -> list[security_pb2.Certificate]:
        """Gives the unexpired certificates of a node, or of all nodes, the newest first."""
        request = security_pb2.ListCertificatesRequest(node_id=node_id)
        response = self._calls.once(
            "ListCertificates", lambda to: to.security.ListCertificates, request, timeout
        )
        return list(response.certificates)


def token_request(
    cluster: str, node_id: str, ttl: float | None, uses: int
) -> security_pb2.CreateTokenRequest:
    """See `SecurityCalls.create_token`."""
    request = security_pb2.CreateTokenRequest(cluster=cluster, node_id=node_id, uses=uses)
    if ttl is not None:
        request.ttl.CopyFrom(to_duration(ttl))
    return request
