"""Redaction of secrets in a run's output after the secrets themselves were deleted.

The length of each secret and 24 bits of a checksum are kept. A good hash would confirm a guess; this reveals
24 bits at most. In about one of 2000 outputs, other text matches by chance and is masked.
"""

import zlib
from collections.abc import Iterable, Sequence

from runyard.common.secrets import MASK

_BITS = 0xFFFFFF


def redaction_fingerprints(values: Iterable[str]) -> list[list[int]]:
    """Return the fingerprints of secrets: the length of each in bytes of UTF-8, and its checksum."""
    return sorted([len(value.encode()), _checksum(value.encode())] for value in set(values))


def redacted(fingerprints: Iterable[Sequence[int]], text: str) -> str:
    """Return the text with every match of a fingerprint masked.

    Args:
        fingerprints: Results of `redaction_fingerprints`.
        text: A few KiB; the work is its length times the number of different secret lengths.
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
