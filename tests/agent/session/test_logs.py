"""Logs are read by byte offset, in bounded pieces, until the attempt is over."""

import asyncio
from pathlib import Path

import pytest

from runyard.agent.logs import CHUNK_BYTES, LogChunk, follow, read_chunk, read_tail, stream


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "stdout"
    path.write_bytes(b"0123456789")
    return path


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 100, LogChunk(0, b"0123456789")),
        (3, 4, LogChunk(3, b"3456")),
        (-3, 100, LogChunk(7, b"789")),
        (-100, 100, LogChunk(0, b"0123456789")),
        (10, 100, LogChunk(10, b"")),
        (99, 100, LogChunk(99, b"")),
    ],
)
def test_a_piece_begins_where_it_was_asked_for(
    log: Path, offset: int, limit: int, expected: LogChunk
) -> None:
    assert read_chunk(log, offset, limit) == expected


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_chunk(tmp_path / "stdout", 0) == LogChunk(0, b"")
    assert read_chunk(tmp_path / "stdout", -5) == LogChunk(0, b"")


@pytest.fixture
def long_log(tmp_path: Path) -> Path:
    path = tmp_path / "long"
    path.write_bytes(bytes(CHUNK_BYTES * 2 + 5))
    return path


async def test_a_long_log_comes_in_bounded_pieces(long_log: Path) -> None:
    pieces = [chunk async for chunk in stream(long_log, 2)]
    assert [(piece.offset, len(piece.data)) for piece in pieces] == [
        (2, CHUNK_BYTES),
        (2 + CHUNK_BYTES, CHUNK_BYTES),
        (2 + 2 * CHUNK_BYTES, 3),
    ]


async def test_a_limit_counts_over_all_pieces(long_log: Path) -> None:
    limit = CHUNK_BYTES + 7
    assert sum([len(chunk.data) async for chunk in stream(long_log, 0, limit)]) == limit
    assert sum([len(chunk.data) async for chunk in follow(long_log, 0, lambda: False, limit)]) == limit


async def test_follow_gives_what_is_written_later_and_ends_with_the_attempt(log: Path) -> None:
    over = asyncio.Event()
    seen = b""
    async with asyncio.timeout(10):
        async for chunk in follow(log, -2, over.is_set):
            assert chunk.offset == 8 + len(seen)
            seen += chunk.data
            if seen == b"89":
                _append(log, b"ab")
            elif seen == b"89ab":
                over.set()
                _append(log, b"cd")
    assert seen == b"89abcd"


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_the_tail_is_whole_lines_of_text(log: Path) -> None:
    log.write_text("first line\nsecond line\nthird\n")
    assert read_tail(log, 20) == "second line\nthird\n"
    assert read_tail(log, 10) == "third\n"
    assert read_tail(log, 1000) == "first line\nsecond line\nthird\n"


def test_the_tail_of_one_endless_line_is_cut_anywhere(log: Path) -> None:
    log.write_text("x" * 100)
    assert read_tail(log, 20) == "x" * 20


def test_the_tail_is_valid_utf8_of_bounded_size_whatever_was_written(log: Path) -> None:
    log.write_bytes(b"\xff" * 10_000)
    tail = read_tail(log, 8192)
    assert 0 < len(tail.encode()) <= 8192
    assert set(tail) == {"\N{REPLACEMENT CHARACTER}"}
