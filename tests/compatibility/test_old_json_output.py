"""Scripts that were written for version 0.1.0 find what they look for in the output of `runyard`."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from compatibility.comparing import RECORDED, differences, recorded
from compatibility.serving import Asked, as_value, serving

OUTPUT: dict[str, Any] = recorded("output.json")

FOR_PEOPLE = re.compile(r"\.filters\[\d+\]\.reason: is ")
"""Texts for people, whose words may change: that they are there is all that counts."""


@pytest.fixture(scope="module")
def coordinator() -> Iterator[Asked]:
    with serving(RECORDED / "coordinator") as asked:
        yield asked


@pytest.mark.parametrize("name", OUTPUT)
def test_command_gives_the_same_fields_and_values_and_ends_with_the_same_code(
    coordinator: Asked, name: str
) -> None:
    code, output = coordinator.run(*OUTPUT[name]["arguments"])
    assert code == OUTPUT[name]["exit_code"]
    found = differences(OUTPUT[name]["output"], as_value(output))
    assert [each for each in found if not FOR_PEOPLE.match(each)] == []
