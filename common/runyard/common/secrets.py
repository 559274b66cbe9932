"""Secrets: a type for them, names that suggest them, and masking of texts that may hold them.

Standard library only: the launcher and the services share it.
"""

import hmac
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

MASK: Final = "***"
"""Text that replaces a secret."""

SHORTEST: Final = 6
"""Minimum length of a value to be masked. Shorter ones occur in ordinary words."""

MOST_REMEMBERED: Final = 1_000
"""Maximum number of values that are masked. Beyond it the oldest are dropped."""

_SECRET_NAME: Final = re.compile(r"TOKEN|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL|KEY", re.IGNORECASE)
_IN_URL: Final = re.compile(r"(://[^\s:/@]*:)([^\s@/]+)@")
_ASSIGNED: Final = re.compile(
    r"""\b([A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|_KEY)[A-Z0-9_]*=)"""
    r"""("[^"]*"|'[^']*'|[^\s"',;)\]}]+)"""
)


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A text that only `reveal` returns; every other representation is masked.

    Args:
        _value: The text.
    """

    _value: str

    def reveal(self) -> str:
        """Return the text."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __format__(self, specification: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: others may read what is written")


def is_secret_name(name: str) -> bool:
    """True if a name suggests a secret, such as `API_TOKEN` or `db_password`."""
    return _SECRET_NAME.search(name) is not None


def secret_names(environment: Mapping[str, str]) -> list[str]:
    """Return the variables whose names suggest secrets."""
    return [name for name in environment if is_secret_name(name)]


def names_of_urls_with_passwords(environment: Mapping[str, str]) -> list[str]:
    """Return the variables whose values are URLs with passwords."""
    return [name for name, value in environment.items() if _IN_URL.search(value)]


def secret_values(environment: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return the values to mask in a text that may quote an environment.

    Args:
        environment: Variables.
        names: Variables whose whole value is secret. Of the others, only passwords in URLs are.

    Returns:
        Values without surrounding blanks. Values of several lines are split, since logs may be cut between
        lines. Values shorter than `SHORTEST` are left out.
    """
    secret = set(names)
    found: dict[str, None] = {}
    for name, value in environment.items():
        pieces = value.splitlines() if name in secret else [match[2] for match in _IN_URL.finditer(value)]
        found.update((piece.strip(), None) for piece in pieces if len(piece.strip()) >= SHORTEST)
    return list(found)


class KnownSecrets:
    """Values that this process masks in every text. Bounded, and safe to use from many threads."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[str, None] = OrderedDict()
        self._longest_first: tuple[str, ...] = ()

    def remember(self, values: Iterable[str]) -> None:
        """Mask these values from now on, except those shorter than `SHORTEST`."""
        with self._lock:
            before = len(self._values)
            for value in values:
                if len(value) >= SHORTEST:
                    self._values[value] = None
                    self._values.move_to_end(value)
            if len(self._values) == before:
                return
            while len(self._values) > self._most:
                self._values.popitem(last=False)
            # One may be a part of another, so the longest is replaced first.
            self._longest_first = tuple(sorted(self._values, key=len, reverse=True))

    def masked(self, text: str) -> str:
        """Mask remembered values, passwords in URLs, and values assigned to secret names."""
        for value in self._longest_first:
            if value in text:
                text = text.replace(value, MASK)
        if "://" in text:
            text = _IN_URL.sub(rf"\1{MASK}@", text)
        return _ASSIGNED.sub(rf"\1{MASK}", text) if "=" in text else text


KNOWN: Final = KnownSecrets()
"""Secrets of this process."""


def remember(values: Iterable[str]) -> None:
    """Mask these values in everything that this process logs."""
    KNOWN.remember(values)


def masked(text: str) -> str:
    """Return the text with secrets masked; see `KnownSecrets.masked`."""
    return KNOWN.masked(text)
