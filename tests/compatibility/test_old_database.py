"""A coordinator loads the database of version 0.1.0 to the same state."""

from pathlib import Path
from typing import Any

import pytest
from compatibility.comparing import differences, private_copy, recorded
from compatibility.readers import read_database

BEFORE = 1_700_000_000.0
"""No recorded certificate had expired then."""

OLD: dict[str, Any] = recorded("database.json")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read_database(private_copy("coordinator", tmp_path_factory.mktemp("database")), BEFORE)


def test_number_of_records_of_each_kind_is_the_same(new: dict[str, Any]) -> None:
    assert {part: len(entries) for part, entries in OLD.items()} == {part: len(new[part]) for part in OLD}


@pytest.mark.parametrize("run_id", OLD["runs"])
def test_run_and_its_events_are_loaded_unchanged(new: dict[str, Any], run_id: str) -> None:
    assert differences(OLD["runs"][run_id], new["runs"][run_id]) == []
    assert differences(OLD["events"][run_id], new["events"][run_id]) == []


@pytest.mark.parametrize("node_id", OLD["nodes"])
def test_node_is_loaded_with_its_capacity_and_the_state_that_the_operator_set(
    new: dict[str, Any], node_id: str
) -> None:
    assert differences(OLD["nodes"][node_id], new["nodes"][node_id]) == []


@pytest.mark.parametrize("part", ["tombstones", "snapshots", "tokens", "certificates", "revocations"])
def test_other_records_are_loaded_unchanged(new: dict[str, Any], part: str) -> None:
    assert differences(OLD[part], new[part]) == []


def test_opening_the_database_twice_gives_the_same_state(tmp_path: Path) -> None:
    copy = private_copy("coordinator", tmp_path)
    first = read_database(copy, BEFORE)
    assert read_database(copy, BEFORE) == first
