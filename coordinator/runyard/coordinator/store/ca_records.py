"""Records of the certificate authority: join tokens, certificates of nodes, and revocations.

All functions run inside a transaction of the store. Times are in seconds since 1970.
"""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.dialects import sqlite

from runyard.coordinator.store.schema import (
    certificate_revocations,
    certificates,
    join_tokens,
    node_revocations,
)


@dataclass(frozen=True)
class Token:
    """A join token, without its secret.

    Attributes:
        token_id: Its ID.
        secret_digest: SHA-256 of the secret, hexadecimal.
        cluster: Cluster of the nodes that join with it.
        node_id: The only node that may join with it; empty: any node.
        created_at: Time of creation.
        expires_at: End of validity.
        uses: Number of nodes that may join with it.
        used: Number of nodes that have joined with it.
        created_by: URI of the identity that created it, or `local`.
    """

    token_id: str
    secret_digest: str
    cluster: str
    node_id: str
    created_at: float
    expires_at: float
    uses: int
    used: int
    created_by: str


@dataclass(frozen=True)
class NodeCertificate:
    """A certificate that was issued to a node.

    Attributes:
        serial: Serial number in lower-case hexadecimal digits.
        uri: URI of the identity.
        cluster: Cluster of the identity.
        node_id: Node ID of the identity.
        key_digest: SHA-256 of the public key, hexadecimal.
        request_digest: SHA-256 of the certificate request, hexadecimal.
        token_id: ID of the token that was used; empty for a renewal.
        issued_at: Time of issue.
        not_before: Start of validity; may lie before `issued_at`.
        not_after: End of validity.
        authority: Name of the issuing authority; see `Authority.name`.
        pem: The certificate.
    """

    serial: str
    uri: str
    cluster: str
    node_id: str
    key_digest: str
    request_digest: str
    token_id: str
    issued_at: float
    not_before: float
    not_after: float
    authority: str
    pem: str


@dataclass(frozen=True)
class NodeRevocation:
    """Revokes every certificate of a node whose validity starts at `at` or before."""

    node_id: str
    at: float
    reason: str


@dataclass(frozen=True)
class CertificateRevocation:
    """Revokes the certificate with a serial number."""

    serial: str
    at: float
    reason: str


def insert_token(connection: Connection, token: Token) -> None:
    """Store a new token."""
    connection.execute(insert(join_tokens), [asdict(token)])


def find_token(connection: Connection, token_id: str) -> Token | None:
    """Return the token with an ID, or None."""
    row = connection.execute(select(join_tokens).where(join_tokens.c.token_id == token_id)).first()
    return None if row is None else _token(row)


def read_tokens(connection: Connection) -> list[Token]:
    """Return all tokens, newest first."""
    return [
        _token(row)
        for row in connection.execute(select(join_tokens).order_by(join_tokens.c.created_at.desc()))
    ]


def count_token_use(connection: Connection, token_id: str) -> None:
    """Count one use of a token."""
    table = join_tokens
    connection.execute(update(table).where(table.c.token_id == token_id).values(used=table.c.used + 1))


def delete_token(connection: Connection, token_id: str) -> bool:
    """Delete a token. Return False if there was none."""
    return connection.execute(delete(join_tokens).where(join_tokens.c.token_id == token_id)).rowcount > 0


def insert_certificate(connection: Connection, certificate: NodeCertificate) -> None:
    """Store a new certificate."""
    connection.execute(insert(certificates), [asdict(certificate)])


def certificate_issued_for(
    connection: Connection, token_id: str, request_digest: str, since: float
) -> NodeCertificate | None:
    """Return the certificate that was issued for the same request and token at `since` or later, or None."""
    query = select(certificates).where(
        certificates.c.token_id == token_id,
        certificates.c.request_digest == request_digest,
        certificates.c.issued_at >= since,
    )
    row = connection.execute(query).first()
    return None if row is None else _certificate(row)


def unexpired_certificates(connection: Connection, now: float, node_id: str = "") -> list[NodeCertificate]:
    """Return the unexpired certificates of a node (empty: of all nodes), newest first."""
    query = select(certificates).where(certificates.c.not_after > now)
    if node_id:
        query = query.where(certificates.c.node_id == node_id)
    rows = connection.execute(query.order_by(certificates.c.issued_at.desc()))
    return [_certificate(row) for row in rows]


def upsert_revocation(connection: Connection, revocation: NodeRevocation | CertificateRevocation) -> None:
    """Store a revocation; it replaces an earlier one of the same node or serial number."""
    table = node_revocations if isinstance(revocation, NodeRevocation) else certificate_revocations
    statement = sqlite.insert(table).values(asdict(revocation))
    replaced = {"at": statement.excluded.at, "reason": statement.excluded.reason}
    connection.execute(statement.on_conflict_do_update(index_elements=[*table.primary_key], set_=replaced))


def read_revocations(connection: Connection) -> list[NodeRevocation | CertificateRevocation]:
    """Return all revocations, of nodes and of single certificates."""
    return [
        *(
            NodeRevocation(row.node_id, row.at, row.reason)
            for row in connection.execute(select(node_revocations))
        ),
        *(
            CertificateRevocation(row.serial, row.at, row.reason)
            for row in connection.execute(select(certificate_revocations))
        ),
    ]


def delete_expired(connection: Connection, before: float) -> None:
    """Delete tokens and certificates that expired before a time."""
    connection.execute(delete(join_tokens).where(join_tokens.c.expires_at < before))
    connection.execute(delete(certificates).where(certificates.c.not_after < before))


def _token(row: Row[tuple[object, ...]]) -> Token:
    return Token(**row._mapping)


def _certificate(row: Row[tuple[object, ...]]) -> NodeCertificate:
    return NodeCertificate(**row._mapping)
