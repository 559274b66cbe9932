"""Reading and writing tokens, certificates and revocations, inside a transaction of the store."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Row, Table, delete, insert, select, update

from runyard.coordinator.auth.revocations import CertificateRevocation, NodeRevocation
from runyard.coordinator.ca.tokens import Token
from runyard.coordinator.store.schema import (
    certificate_revocations,
    certificates,
    join_tokens,
    node_revocations,
)


@dataclass(frozen=True)
class NodeCertificate:
    """A certificate that was given to a node. Times are in seconds since 1970.

    Attributes:
        serial: In lower-case hexadecimal digits.
        uri: The identity.
        cluster: Of the identity.
        node_id: Of the identity.
        key_digest: SHA-256 of the public key.
        request_digest: SHA-256 of the request that it answers.
        token_id: The token that was used; empty for a renewal.
        issued_at: When it was made.
        not_before: From when it holds, which may be before that.
        not_after: When it expires.
        authority: Who signed it: see `Authority.name`.
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


def put_token(connection: Connection, token: Token) -> None:
    """Keeps a new token."""
    connection.execute(insert(join_tokens), [asdict(token)])


def token_of(connection: Connection, token_id: str) -> Token | None:
    """The token of that ID."""
    row = connection.execute(select(join_tokens).where(join_tokens.c.token_id == token_id)).first()
    return None if row is None else _token(row)


def all_tokens(connection: Connection) -> list[Token]:
    """All tokens, the newest first."""
    return [
        _token(row)
        for row in connection.execute(select(join_tokens).order_by(join_tokens.c.created_at.desc()))
    ]


def use_token(connection: Connection, token_id: str) -> None:
    """Counts one use."""
    table = join_tokens
    connection.execute(update(table).where(table.c.token_id == token_id).values(used=table.c.used + 1))


def drop_token(connection: Connection, token_id: str) -> bool:
    """Forgets a token. False if there was none."""
    return connection.execute(delete(join_tokens).where(join_tokens.c.token_id == token_id)).rowcount > 0


def put_certificate(connection: Connection, certificate: NodeCertificate) -> None:
    """Keeps a new certificate."""
    connection.execute(insert(certificates), [asdict(certificate)])


def answer_given(
    connection: Connection, token_id: str, request_digest: str, since: float
) -> NodeCertificate | None:
    """The certificate that was given for the same request and token since that moment."""
    query = select(certificates).where(
        certificates.c.token_id == token_id,
        certificates.c.request_digest == request_digest,
        certificates.c.issued_at >= since,
    )
    row = connection.execute(query).first()
    return None if row is None else _certificate(row)


def unexpired_certificates(connection: Connection, now: float, node_id: str = "") -> list[NodeCertificate]:
    """The certificates that have not expired, the newest first; of one node or, if it is empty, of all."""
    query = select(certificates).where(certificates.c.not_after > now)
    if node_id:
        query = query.where(certificates.c.node_id == node_id)
    rows = connection.execute(query.order_by(certificates.c.issued_at.desc()))
    return [_certificate(row) for row in rows]


def put_revocation(connection: Connection, revocation: NodeRevocation | CertificateRevocation) -> None:
    """Keeps a revocation, in place of an earlier one of the same."""
    table: Table
    match revocation:
        case NodeRevocation():
            table, key = node_revocations, node_revocations.c.node_id == revocation.node_id
        case CertificateRevocation():
            table, key = certificate_revocations, certificate_revocations.c.serial == revocation.serial
    connection.execute(delete(table).where(key))
    connection.execute(insert(table), [asdict(revocation)])


def all_revocations(connection: Connection) -> list[NodeRevocation | CertificateRevocation]:
    """All revocations, of nodes and of single certificates."""
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


def drop_expired(connection: Connection, before: float) -> None:
    """Forgets tokens and certificates that expired before that moment."""
    connection.execute(delete(join_tokens).where(join_tokens.c.expires_at < before))
    connection.execute(delete(certificates).where(certificates.c.not_after < before))


def _token(row: Row[tuple[object, ...]]) -> Token:
    return Token(**row._mapping)


def _certificate(row: Row[tuple[object, ...]]) -> NodeCertificate:
    return NodeCertificate(**row._mapping)
