"""How the secrets of a run are recognised in its last words, when they themselves are on no disk any more.

Of each secret, its length and 24 bits of a checksum are kept. That is as little as can be: a good hash would
confirm a guess, while this gives away 24 bits at most, whatever is tried. Once in some 2000 outputs it takes
something else for a secret, and masks that.
"""

import zlib
from collections.abc import Iterable, Sequence

from runyard.common.secrets import MASK

_BITS = 0xFFFFFF


def redaction_fingerprints(values: Iterable[str]) -> list[list[int]]:
    """What is kept of these values: of each, its length in bytes of UTF-8 and its checksum."""
    return sorted([len(value.encode()), _checksum(value.encode())] for value in set(values))


def redacted(fingerprints: Iterable[Sequence[int]], text: str) -> str:
    """The text without what has one of the fingerprints.

    Args:
        fingerprints: As `redaction_fingerprints` made them.
        text: A few KiB; the work grows with its length, for each length that there is.
    """
    data = text.encode()
    wanted: dict[int, set[int]] = {}
    for length, checksum in fingerprints:
        wanted.setdefault(length, set()).add(checksum)
    found = [
        (start, start + length)
        for length, checksums in wanted.items()
        for start in range(len(data) - length + 1)
        if zlib.crc32(data[start : start + length]) & _BITS in checksums
    ]
    return _without(data, sorted(found)).decode(errors="replace") if found else text


def _checksum(data: bytes) -> int:
    return zlib.crc32(data) & _BITS


def _without(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    kept, at = [], 0
    for start, end in spans:
        if start >= at:
            kept += [data[at:start], MASK.encode()]
        at = max(at, end)
    return b"".join([*kept, data[at:]])
