"""Bytes for a target without atheris: what is in order with some harm done to it, and anything at all."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from security.fuzzing.targets import Target

Draw = Callable[[st.SearchStrategy[Any]], Any]


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """What to have a target read."""
    words = st.lists(st.sampled_from([*target.words, *target.seeds]), max_size=12).map(b"".join)
    text = st.text(max_size=60).map(lambda drawn: drawn.encode(errors="surrogatepass"))
    return _harmed(target) | words | text | st.binary(max_size=200)


@st.composite
def _harmed(draw: Draw, target: Target) -> bytes:
    data = bytearray(draw(st.sampled_from(target.seeds)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 4, 40])))
        piece = draw(st.sampled_from([*target.words, b""]) | st.binary(max_size=4))
        data[start:end] = piece * draw(st.sampled_from([1, 1, 1, 2, 300]))
    return bytes(data)
