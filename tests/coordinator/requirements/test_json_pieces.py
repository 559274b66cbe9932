"""The selective JSON parser gives the same values as the whole text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.coordinator.core.requirements.json_pieces import EACH, Path, pieces

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
PATHS: list[Path] = [("a", "b", EACH), ("a", "c"), ("b",), ("c", EACH, "a")]


def at(path: Path, value: Any) -> list[Any]:
    if not path:
        return [value]
    if isinstance(value, list):
        return [found for item in value for found in at(path[1:], item)] if path[0] == EACH else []
    if isinstance(value, dict):
        members = value.values() if path[0] == EACH else [value[path[0]]] if path[0] in value else []
        return [found for member in members for found in at(path[1:], member)]
    return []


@given(ANY_JSON, st.sampled_from([None, 1]), st.booleans())
def test_wanted_pieces_equal_those_of_the_whole_value(value: Any, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    found: dict[Path, list[Any]] = {path: [] for path in PATHS}
    for path, piece in pieces(text, PATHS):
        found[path].append(piece)
    assert found == {path: at(path, value) for path in PATHS}


@pytest.mark.parametrize(
    "text", ["", "{", "[1", "[1 2]", "{1: 2}", '{"a" 1}', '{"a": 1,}', "{} {}", "nul", '{"a": [1, {]}', '"a']
)
def test_text_that_is_not_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(pieces(text, PATHS))


@given(ANY_JSON, st.data())
def test_json_that_was_cut_off_is_a_value_error(value: Any, data: st.DataObject) -> None:
    text = json.dumps([value])
    with pytest.raises(ValueError, match=r"."):
        list(pieces(text[: data.draw(st.integers(0, len(text) - 1))], PATHS))
