"""What must not be seen: a type for it, names that tell of it, and masks for text that may hold it.

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
"""What stands in place of a secret."""

SHORTEST: Final = 6
"""Characters that a value has at least to be masked: shorter ones are in every other word."""

MOST_REMEMBERED: Final = 1_000
"""Values that are looked for in every text; of more, those are forgotten that were remembered first."""

_SECRET_NAME: Final = re.compile(r"TOKEN|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL|KEY", re.IGNORECASE)
_IN_URL: Final = re.compile(r"(://[^\s:/@]*:)([^\s@/]+)@")
_ASSIGNED: Final = re.compile(
    r"""\b([A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|_KEY)[A-Z0-9_]*=)"""
    r"""("[^"]*"|'[^']*'|[^\s"',;)\]}]+)"""
)


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A text that shows itself to nobody who does not ask for it by name.

    Args:
        _value: The text.
    """

    _value: str

    def reveal(self) -> str:
        """The text itself."""
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
        raise TypeError("a Secret is not pickled: what is written down, others may read")


def is_secret_name(name: str) -> bool:
    """Whether what is called so is a secret by the look of its name, such as `API_TOKEN` or `db_password`."""
    return _SECRET_NAME.search(name) is not None


def secret_names(environment: Mapping[str, str]) -> list[str]:
    """The variables that hold secrets by the look of their names."""
    return [name for name in environment if is_secret_name(name)]


def names_of_urls_with_passwords(environment: Mapping[str, str]) -> list[str]:
    """The variables in whose values a password is a part of a URL."""
    return [name for name, value in environment.items() if _IN_URL.search(value)]


def secret_values(environment: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """What to look for in a text that may quote an environment.

    Args:
        environment: Variables.
        names: Of those that are secret. Of all others, only passwords in URLs are.

    Returns:
        Values without blanks around them, those of many lines as their lines, since logs are cut anywhere
        between two lines. What is shorter than `SHORTEST` is left out.
    """
    secret = set(names)
    found: dict[str, None] = {}
    for name, value in environment.items():
        pieces = value.splitlines() if name in secret else [match[2] for match in _IN_URL.finditer(value)]
        found.update((piece.strip(), None) for piece in pieces if len(piece.strip()) >= SHORTEST)
    return list(found)


class KnownSecrets:
    """Values that no text of this process may show; bounded, and safe to use from many threads."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[str, None] = OrderedDict()
        self._longest_first: tuple[str, ...] = ()

    def remember(self, values: Iterable[str]) -> None:
        """Has these values masked from now on; what is shorter than `SHORTEST` cannot be."""
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
            # One may be a part of another: the whole goes first.
            self._longest_first = tuple(sorted(self._values, key=len, reverse=True))

    def masked(self, text: str) -> str:
        """The text without remembered values, passwords in URLs, and values assigned to secret names."""
        for value in self._longest_first:
            if value in text:
                text = text.replace(value, MASK)
        if "://" in text:
            text = _IN_URL.sub(rf"\1{MASK}@", text)
        return _ASSIGNED.sub(rf"\1{MASK}", text) if "=" in text else text


KNOWN: Final = KnownSecrets()
"""Those of this process."""


def remember(values: Iterable[str]) -> None:
    """Has these values masked in all that this process logs."""
    KNOWN.remember(values)


def masked(text: str) -> str:
    """The text as it may be shown; see `KnownSecrets.masked`."""
    return KNOWN.masked(text)
