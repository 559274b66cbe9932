"""Whatever arrives at the port, those who are in session do not notice."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import strategies as st
from security.besieged import Siege, besieged, besieged_fort
from security.rounds import fuzz

from runyard.common.transport.address import HostPort, parse_address

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

CLIENT_HELLO: Final = bytes.fromhex("16030100c8010000c40303") + bytes(range(32)) + b"\x20" + bytes(160)
"""The beginning of a TLS handshake, of which the rest is zeros."""

AN_INSTANT: Final = 0.05
"""Seconds in which to hear the answer, if there is one."""

IDLE_CONNECTIONS: Final = 200
"""Connections that say nothing, or half of something, and stay."""

ROUNDS: Final = 5
"""Of them. Handshakes that fail side by side once ended the process in every third round."""


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """An HTTP/2 frame, whose length may be a lie."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@pytest.fixture(scope="module", params=[besieged, besieged_fort], ids=["plain", "secured"])
def siege(request: pytest.FixtureRequest) -> Iterator[Siege]:
    with request.param() as one:
        yield one
        one.assert_memory_bounded()


FRAMES = st.builds(
    frame,
    kind=st.integers(0, 12) | st.integers(0, 255),
    flags=st.integers(0, 255),
    stream=st.sampled_from([0, 1, 2, 3, 1 << 31, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1),
    payload=st.binary(max_size=64) | st.just(b"\x82" * 5_000) | st.just(bytes(16_384)),
    length=st.none() | st.sampled_from([0, 1, 16_384, (1 << 24) - 1]),
)

REQUESTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /runyard.v1.LaunchService/LaunchRun HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000,
        b"\0" * 70_000,
        CLIENT_HELLO,
        CLIENT_HELLO[:20],
        PREFACE[:10],
        PREFACE,
    ]
)

CONVERSATIONS = (
    st.binary(max_size=300)
    | REQUESTS
    | st.lists(FRAMES, max_size=8).map(lambda frames: PREFACE + frame(4, 0, 0, b"") + b"".join(frames))
    | st.tuples(REQUESTS, st.binary(max_size=50)).map(b"".join)
)


def connected(siege: Siege) -> socket.socket:
    address = parse_address(siege.address)
    if isinstance(address, HostPort):
        return socket.create_connection((address.host, address.port), AN_INSTANT)
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(AN_INSTANT)
    opened.connect(address.path)
    return opened


def test_any_bytes_on_the_port(siege: Siege) -> None:
    def attack(data: bytes) -> None:
        siege.sent += len(data)
        with connected(siege) as opened:
            try:
                opened.sendall(data)
                opened.recv(100)
            except OSError:
                pass  # hung up on, or no answer: what matters is what others notice
        siege.assert_undisturbed()
        siege.assert_nothing_unforeseen()

    assert fuzz(CONVERSATIONS, attack, ordinary=2.0)
    siege.assert_memory_bounded()


def test_many_connections_that_never_say_who_they_are(siege: Siege) -> None:
    openings = [b"", PREFACE[:5], PREFACE, CLIENT_HELLO[:30], PREFACE + frame(0, 0, 1, b"", 16_384)]
    for _ in range(ROUNDS):
        idle = [connected(siege) for _ in range(IDLE_CONNECTIONS)]
        try:
            for number, opened in enumerate(idle):
                with contextlib.suppress(OSError):  # hung up on already
                    opened.sendall(openings[number % len(openings)])
            siege.assert_undisturbed()
            siege.assert_memory_bounded()
        finally:
            for opened in idle:
                opened.close()
        siege.assert_undisturbed()
        siege.assert_nothing_unforeseen()
