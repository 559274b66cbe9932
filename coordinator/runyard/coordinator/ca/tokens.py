"""Creation and validity of join tokens. Pure: times are in seconds since 1970."""

import hashlib
import hmac
import secrets
from typing import Final

from runyard.common.names import NAME
from runyard.common.security.join_token import JoinCredential
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.store.ca_records import Token

DEFAULT_TTL: Final = 15 * 60.0
LONGEST_TTL: Final = 24 * 3600.0
MOST_USES: Final = 1_000


def make_token(
    cluster: str, node_id: str, ttl: float, uses: int, *, created_by: str, now: float
) -> tuple[Token, JoinCredential]:
    """Return a new token, and the credential with its secret, which is shown only once.

    Args:
        cluster: Cluster of the nodes that join with it.
        node_id: The only node that may join with it; empty: any node.
        ttl: Validity in seconds.
        uses: Number of nodes that may join with it.
        created_by: URI of the identity that creates it, or `local`.
        now: Seconds since 1970.

    Raises:
        InvalidField: A name is not valid, or a number is out of bounds.
    """
    _check_names(cluster, node_id)
    if not 1 <= ttl <= LONGEST_TTL:
        raise InvalidField("ttl", f"is {ttl:g} s; it must be from 1 s to 24 h")
    if not 1 <= uses <= MOST_USES:
        raise InvalidField("uses", f"is {uses}; it must be from 1 to {MOST_USES}")
    credential = JoinCredential(secrets.token_hex(6), secrets.token_urlsafe(32))
    digest = _digest(credential.secret)
    token = Token(credential.token_id, digest, cluster, node_id, now, now + ttl, uses, 0, created_by)
    return token, credential


def has_secret(token: Token | None, secret: str) -> bool:
    """True if the secret belongs to the token. Takes the same time if there is no token."""
    expected = token.secret_digest if token else _digest("")
    return hmac.compare_digest(expected, _digest(secret)) and token is not None


def reason_unusable(token: Token, now: float) -> str:
    """Return the reason why no node can join with the token, for the log; empty if one can."""
    if now >= token.expires_at:
        return "the token has expired"
    if token.used >= token.uses:
        return "the token is used up"
    return ""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_names(cluster: str, node_id: str) -> None:
    for field, name in (("cluster", cluster), ("node_id", node_id)):
        if not NAME.fullmatch(name) and (name or field == "cluster"):
            raise InvalidField(
                field, f"{name[:128]!r} must be letters, digits, '.', '_' and '-', 128 at most"
            )
