"""Join tokens: what each is good for, and whether it may be used. Pure: times are in seconds since 1970."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from runyard.common.names import NAME
from runyard.common.security.join_token import Ticket
from runyard.coordinator.core.errors import InvalidField

DEFAULT_TTL: Final = 15 * 60.0
LONGEST_TTL: Final = 24 * 3600.0
MOST_USES: Final = 1_000


@dataclass(frozen=True)
class Token:
    """A join token as it is kept: without its secret.

    Attributes:
        token_id: Names it.
        secret_digest: SHA-256 of the secret, hexadecimal.
        cluster: Which nodes join with it.
        node_id: The only node that may; empty if any may.
        created_at: When it was made.
        expires_at: From when on it is worth nothing.
        uses: How many nodes may join with it.
        used: How many have.
        created_by: URI of who made it, or `local`.
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


def make_token(
    cluster: str, node_id: str, ttl: float, uses: int, *, created_by: str, now: float
) -> tuple[Token, Ticket]:
    """A new token, and what is told of it once.

    Args:
        cluster: Which nodes join with it.
        node_id: The only node that may; empty if any may.
        ttl: Seconds for which it can be used.
        uses: How many nodes may join with it.
        created_by: URI of who makes it, or `local`.
        now: Seconds since 1970.

    Raises:
        InvalidField: A name cannot be one, or a number is out of its bounds.
    """
    _check_names(cluster, node_id)
    if not 1 <= ttl <= LONGEST_TTL:
        raise InvalidField("ttl", f"is {ttl:g} s; it must be from 1 s to 24 h")
    if not 1 <= uses <= MOST_USES:
        raise InvalidField("uses", f"is {uses}; it must be from 1 to {MOST_USES}")
    ticket = Ticket(secrets.token_hex(6), secrets.token_urlsafe(32))
    digest = _digest(ticket.secret)
    token = Token(ticket.token_id, digest, cluster, node_id, now, now + ttl, uses, 0, created_by)
    return token, ticket


def is_of(token: Token | None, secret: str) -> bool:
    """Whether the secret is the token's; takes as long for a token that there is not."""
    expected = token.secret_digest if token else _digest("")
    return hmac.compare_digest(expected, _digest(secret)) and token is not None


def why_unusable(token: Token, now: float) -> str:
    """Why nobody can join with it any more, for the log; empty if somebody can."""
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
