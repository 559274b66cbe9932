"""A coordinator takes up the database of version 0.1.0."""

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


def test_nothing_is_lost_and_nothing_is_invented(new: dict[str, Any]) -> None:
    assert {part: len(entries) for part, entries in OLD.items()} == {part: len(new[part]) for part in OLD}


@pytest.mark.parametrize("run_id", OLD["runs"])
def test_run_is_taken_up_as_it_was(new: dict[str, Any], run_id: str) -> None:
    assert differences(OLD["runs"][run_id], new["runs"][run_id]) == []
    assert differences(OLD["events"][run_id], new["events"][run_id]) == []


@pytest.mark.parametrize("node_id", OLD["nodes"])
def test_node_is_taken_up_with_what_it_offers_and_what_the_operator_wants(
    new: dict[str, Any], node_id: str
) -> None:
    assert differences(OLD["nodes"][node_id], new["nodes"][node_id]) == []


@pytest.mark.parametrize("part", ["tombstones", "snapshots", "tokens", "certificates", "revocations"])
def test_everything_else_is_taken_up_too(new: dict[str, Any], part: str) -> None:
    assert differences(OLD[part], new[part]) == []


def test_database_that_was_opened_once_opens_again_as_it_was(tmp_path: Path) -> None:
    copy = private_copy("coordinator", tmp_path)
    first = read_database(copy, BEFORE)
    assert read_database(copy, BEFORE) == first
