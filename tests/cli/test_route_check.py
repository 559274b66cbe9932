"""What `runyard route check` says of a routing file, to people and to scripts."""

import importlib
from pathlib import Path

import pytest
from cli.commands import Command, Result
from client.fake_coordinator import FakeCoordinator, make_node

from runyard.cli.main import main

SOUND = (
    "rules: [{name: gpu, match: {job: train}, clusters: [gpu-a, gpu-b]}]\nquotas: {ml: {limit: {gpu: 1}}}\n"
)
DOUBTFUL = "rules:\n- name: all\n- name: never\n  match: {job: x}\n"
FLAWED = "placement: best\non_no_matching_rule: fail\non_no_eligible_node: drop\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "routing.yaml"


def offline(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *argv: str) -> Result:
    """Runs the command where no coordinator is named."""
    monkeypatch.delenv("RUNYARD_ADDRESS", raising=False)
    capfd.readouterr()
    code = main(["route", "check", *argv])
    seen = capfd.readouterr()
    return Result(code, seen.out, seen.err)


def test_sound_file_is_counted(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(SOUND)
    found = offline(capfd, monkeypatch, str(file))
    assert found == Result(0, f"ok       {file}: 1 rule, 1 quota\n", "")


def test_doubt_is_told_with_its_line_and_the_file_passes(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(DOUBTFUL)
    found = offline(capfd, monkeypatch, str(file))
    assert found.code == 0
    assert found.out.splitlines() == [
        f"warning  {file}:3: rules[1]: no run reaches rule never: the earlier rule all matches "
        "all of its runs; put never before all",
        f"ok       {file}: 2 rules, 0 quotas",
    ]


def test_problems_are_shown_with_their_lines_and_end_with_1(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(FLAWED)
    found = offline(capfd, monkeypatch, str(file))
    assert found.code == 1
    assert found.out.splitlines() == [
        f"problem  {file}:1: placement: 'best' is none of binpack, spread",
        f"problem  {file}:3: on_no_eligible_node: 'drop' is none of fail, queue",
    ]


def test_deprecated_keys_are_warnings_with_the_new_name(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("rules: []\nmost_places: 2\n")
    found = offline(capfd, monkeypatch, str(file))
    assert found.code == 0
    assert found.out.splitlines()[0] == (
        f"warning  {file}:2: most_places: is deprecated; rename it to max_placement_attempts"
    )


def test_scripts_get_the_same_as_json(file: Path, runyard: Command) -> None:
    file.write_text(FLAWED)
    found = runyard("route", "check", str(file), "--output", "json")
    assert found.code == 1
    assert found.json()[0] == {
        "level": "problem",
        "line": 1,
        "key": "placement",
        "text": "'best' is none of binpack, spread",
    }
    file.write_text("rules: []")
    (summary,) = runyard("route", "check", str(file), "--output", "json").json()
    assert summary == {"level": "ok", "line": None, "key": None, "text": "0 rules, 0 quotas"}


def test_file_that_is_not_there_is_a_problem_of_its_own(file: Path, runyard: Command) -> None:
    found = runyard("route", "check", str(file))
    assert (found.code, found.out) == (
        1,
        f"problem  {file}: cannot be read (No such file or directory); check the path\n",
    )


def test_clusters_without_nodes_are_told_where_a_coordinator_is_named(
    file: Path, runyard: Command, coordinator: FakeCoordinator
) -> None:
    coordinator.nodes.append(make_node("n1", cluster="gpu-b"))
    file.write_text(SOUND)
    found = runyard("route", "check", str(file), "--address", coordinator.address)
    assert found.code == 0
    assert found.out.splitlines()[0] == (
        f"warning  {file}:1: rules[0].clusters: no node is in cluster gpu-a; "
        "check the name, or start an agent with it"
    )
    assert "gpu-b" not in found.out


def test_coordinator_that_is_away_does_not_stop_the_check(
    file: Path, tmp_path: Path, runyard: Command
) -> None:
    file.write_text(SOUND)
    found = runyard("route", "check", str(file), "--address", f"unix:{tmp_path / 'none'}")
    assert found.code == 0
    assert f"warning  {file}: whether the clusters have nodes was not checked: " in found.out


def test_reader_that_is_not_installed_is_named(
    file: Path, runyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")

    monkeypatch.setattr(importlib, "import_module", missing)
    found = runyard("route", "check", str(file))
    assert found.code == 1
    assert "needs pydantic, which is not installed.\nInstall it with: pip install 'runyard[coordinator]'" in (
        found.err
    )
    assert "Traceback" not in found.err
