"""The JSON output of `runyard` keeps the fields and values of version 0.1.0 for scripts."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from compatibility.comparing import RECORDED, differences, recorded
from compatibility.serving import Asked, as_value, serving

OUTPUT: dict[str, Any] = recorded("output.json")

TEXT_FOR_PEOPLE = re.compile(r"\.filters\[\d+\]\.reason: is (['\"]).+\1, was ")
"""Differences between texts for people. Their words may change, but a text must be there."""


@pytest.fixture(scope="module")
def coordinator() -> Iterator[Asked]:
    with serving(RECORDED / "coordinator") as asked:
        yield asked


@pytest.mark.parametrize("name", OUTPUT)
def test_command_prints_the_same_fields_and_values_and_exits_with_the_same_code(
    coordinator: Asked, name: str
) -> None:
    code, output = coordinator.run(*OUTPUT[name]["arguments"])
    assert code == OUTPUT[name]["exit_code"]
    found = differences(OUTPUT[name]["output"], as_value(output))
    assert [each for each in found if not TEXT_FOR_PEOPLE.match(each)] == []
