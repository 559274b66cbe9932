"""Join token: one line with the token's ID, its secret, and the certificate of the authority to trust."""

import base64
import binascii
import re
import ssl
from dataclasses import dataclass, field
from typing import Final

_PREFIX: Final = "ryj1"

_LONGEST: Final = 16 * 1024
"""Maximum length in characters. A certificate of an authority has a few thousand bytes at most."""

_TOKEN_ID: Final = re.compile(r"[0-9a-f]{12}")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")

REMEDY: Final = "make a new one with `runyard token create` and copy the whole line"


class InvalidToken(ValueError):
    """The text is not a join token; the message says why and does not quote it."""


@dataclass(frozen=True)
class JoinCredential:
    """Part of a join token that the node sends to the coordinator.

    Attributes:
        token_id: ID of the token; not secret.
        secret: 32 random bytes in base64url.
    """

    token_id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """Text on the wire: `ryj1.<ID>.<secret>`."""
        return f"{_PREFIX}.{self.token_id}.{self.secret}"


@dataclass(frozen=True)
class JoinToken:
    """Join token of a node.

    Attributes:
        credential: Part for the coordinator.
        authority: The certificate of the authority in DER. The node trusts nothing else before it has joined.
    """

    credential: JoinCredential
    authority: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """Text for people: `ryj1.<ID>.<secret>.<certificate>`."""
        return f"{self.credential.text}.{base64.urlsafe_b64encode(self.authority).decode().rstrip('=')}"

    @property
    def authority_pem(self) -> bytes:
        """Certificate of the authority in PEM."""
        return ssl.DER_cert_to_PEM_cert(self.authority).encode()


def parse_join_token(text: str) -> JoinToken:
    """Parse a token as `runyard token create` prints it.

    Raises:
        InvalidToken: The text is not a complete join token.
    """
    parts = _parts(text, 4)
    try:
        authority = base64.b64decode(parts[3] + "=" * (-len(parts[3]) % 4), altchars=b"-_", validate=True)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=authority)
    except (binascii.Error, ssl.SSLError, ValueError):
        raise InvalidToken(f"the join token's last part is not a certificate; {REMEDY}") from None
    return JoinToken(_credential(parts), authority)


def parse_join_credential(text: str) -> JoinCredential:
    """Parse a token without its last part, as it is sent.

    Raises:
        InvalidToken: The text is not one.
    """
    return _credential(_parts(text, 3))


def _parts(text: str, count: int) -> list[str]:
    text = text.strip()
    if not text:
        raise InvalidToken(f"there is no join token; {REMEDY}")
    if len(text) > _LONGEST or not text.isascii():
        raise InvalidToken(f"a join token is one line of at most {_LONGEST} letters and digits; {REMEDY}")
    parts = text.split(".")
    if parts[0] != _PREFIX:
        raise InvalidToken(f"a join token begins with `{_PREFIX}.`; {REMEDY}")
    if len(parts) != count:
        raise InvalidToken(f"a join token has {count} parts with dots between, not {len(parts)}; {REMEDY}")
    return parts


def _credential(parts: list[str]) -> JoinCredential:
    if not _TOKEN_ID.fullmatch(parts[1]) or not _SECRET.fullmatch(parts[2]):
        raise InvalidToken(f"the join token is damaged; {REMEDY}")
    return JoinCredential(parts[1], parts[2])
