"""The database: groups of writes are durable as a whole or not at all, and old files can be opened."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from coordinator.states import OUTCOME, PLACE, in_every_phase, make_node, make_run, whole_state
from coordinator.store.small_disk import fill_up, mounted

from runyard.coordinator.core.effects import DropRun, SaveNode, SaveRun, SaveTombstone
from runyard.coordinator.core.model import (
    Assigned,
    Finished,
    Phase,
    Queued,
    Run,
    Running,
    Suspect,
    Tombstone,
)
from runyard.coordinator.store.engine import StoreError
from runyard.coordinator.store.store import Store, StoreFull
from runyard.v1 import run_pb2

NOW = 55.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    opened = Store(state)
    yield opened
    opened.close()


def phases(store: Store) -> dict[str, str]:
    return {run.run_id: type(run.phase).__name__ for run in store.load(NOW).runs}


# What was written is there after


@pytest.mark.parametrize("run_id", in_every_phase())
def test_run_is_restored_with_its_deadlines_starting_again(store: Store, run_id: str) -> None:
    run = in_every_phase()[run_id]
    store.write([SaveRun(run, "launched")])
    (loaded,) = store.load(NOW).runs
    assert loaded == replace(run, queued_since=NOW, since=NOW)


def test_account_is_the_same_after_a_restart(state: Path) -> None:
    first = Store(state)
    first.write(whole_state())
    before = first.load(NOW)
    first.close()
    second = Store(state)
    assert second.load(NOW) == before
    assert len(before.runs) == len(in_every_phase())
    second.close()


def test_account_survives_a_process_that_was_killed_right_after_the_write(state: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from coordinator.states import whole_state;"
        "from runyard.coordinator.store.store import Store;"
        "Store(Path(sys.argv[1])).write(whole_state()); os.kill(os.getpid(), signal.SIGKILL)"
    )
    tests = str(Path(__file__).parents[2])
    killed = subprocess.run([sys.executable, "-c", script, str(state), tests], timeout=60, check=False)
    assert killed.returncode == -9
    store = Store(state)
    assert set(phases(store)) == set(in_every_phase())
    store.close()


def test_node_comes_back_silent_but_otherwise_as_it_was(store: Store) -> None:
    store.write([SaveNode(make_node())])
    assert store.load(NOW).nodes == [replace(make_node(), liveness=Suspect(NOW))]


def test_latest_state_of_a_node_counts(store: Store) -> None:
    store.write([SaveNode(make_node()), SaveNode(replace(make_node(), epoch=4))])
    store.write([SaveNode(replace(make_node(), epoch=5))])
    assert [node.epoch for node in store.load(NOW).nodes] == [5]


def test_tombstone_comes_back_until_it_is_dropped(store: Store) -> None:
    store.write([SaveTombstone("a", Tombstone("first", 10.0)), SaveTombstone("b", Tombstone("", 20.0))])
    assert store.load(NOW).tombstones == {"a": Tombstone("first", 10.0), "b": Tombstone("", 20.0)}
    store.drop_tombstones(older_than=20.0)
    assert set(store.load(NOW).tombstones) == {"b"}


# Groups


def test_group_holds_every_change_of_a_run_in_its_history_and_the_last_as_its_state(store: Store) -> None:
    run = make_run("a")
    store.write([SaveRun(run, "launched"), SaveRun(replace(run, phase=Running(PLACE, 41)), "runs")])
    assert phases(store) == {"a": "Running"}
    assert [(row["phase"], row["node"], row["message"]) for row in store.events("a")] == [
        ("queued", "", "launched"),
        ("running", "node-a", "runs"),
    ]


def test_group_that_fails_in_the_middle_leaves_nothing(store: Store) -> None:
    broken = replace(make_run("b"), attempt=None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NOT NULL"):
        store.write([SaveRun(make_run("a"), "launched"), SaveNode(make_node()), SaveRun(broken, "launched")])
    account = store.load(NOW)
    assert (account.runs, account.nodes) == ([], [])
    assert store.events("a") == []


def test_dropped_run_takes_its_history_along_and_no_other(store: Store) -> None:
    store.write([SaveRun(make_run("a"), "launched"), SaveRun(make_run("b"), "launched")])
    store.write([DropRun("a")])
    assert (phases(store), store.events("a"), len(store.events("b"))) == ({"b": "Queued"}, [], 1)


def test_run_that_is_dropped_and_launched_again_in_one_group_has_its_new_history(store: Store) -> None:
    store.write([SaveRun(make_run("a"), "launched long ago")])
    store.write([DropRun("a"), SaveRun(make_run("a", launched=2_000.0), "launched again")])
    assert [run.times.launched for run in store.load(NOW).runs] == [2_000.0]
    assert [row["message"] for row in store.events("a")] == ["launched again"]


def test_run_that_is_saved_and_dropped_in_one_group_is_gone(store: Store) -> None:
    store.write([SaveRun(make_run("a"), "launched"), DropRun("a")])
    assert (phases(store), store.events("a")) == ({}, [])


def test_any_number_of_runs_may_be_forgotten_at_once(store: Store) -> None:
    run_ids = [f"run-{number}" for number in range(33_000)]
    store.write([SaveRun(make_run("kept"), "launched")])
    store.write([DropRun(run_id) for run_id in run_ids])
    assert phases(store) == {"kept": "Queued"}


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.2, 0.45, 0.7, 0.99, 1.0])
def test_power_cut_leaves_whole_groups_and_the_earlier_ones_first(tmp_path: Path, share: float) -> None:
    groups = [[f"run-{group}-{number}" for number in range(3)] for group in range(8)]
    store = Store(tmp_path / "state")
    for group in groups:
        store.write([SaveRun(make_run(run_id), "launched") for run_id in group])
    # What a disk may hold after a cut: the write-ahead log ends somewhere, in the middle of a page at worst.
    shutil.copytree(tmp_path / "state", tmp_path / "cut")
    store.close()
    log = tmp_path / "cut" / "coordinator.db-wal"
    os.truncate(log, int(log.stat().st_size * share))
    survivor = Store(tmp_path / "cut")
    there = set(phases(survivor))
    survivor.close()
    whole = len(there) // 3
    assert there == {run_id for group in groups[:whole] for run_id in group}
    if share == 1.0:
        assert whole == len(groups)


# Snapshots


def test_snapshot_is_held_once_it_is_put_and_a_repeat_changes_nothing(store: Store) -> None:
    assert not store.has_snapshot("s")
    for data in (b"data", b"other"):
        store.put_snapshot("s", "sum", data)
    assert store.has_snapshot("s")


def test_snapshot_is_dropped_only_when_it_is_old_and_no_run_refers_to_it(store: Store) -> None:
    for name in ("snapshot-1", "unused"):
        store.put_snapshot(name, "sum", b"data")
    store.write([SaveRun(make_run("a"), "launched")])  # refers to snapshot-1
    store.drop_unused_snapshots(older_than=0.0)
    assert store.has_snapshot("unused")
    store.drop_unused_snapshots(older_than=4e9)
    assert (store.has_snapshot("unused"), store.has_snapshot("snapshot-1")) == (False, True)


# A full disk


def test_full_disk_writes_nothing_and_freed_space_is_enough_to_continue(
    small_disk: Path,
) -> None:
    store = Store(small_disk / "state")
    store.write([SaveRun(make_run("before"), "launched")])
    filler = fill_up(small_disk)
    group = [SaveRun(make_run(f"lost-{number}"), "launched") for number in range(50)]
    with pytest.raises(StoreFull, match="state_directory is full"):
        store.write(group)
    with pytest.raises(StoreFull):
        store.put_snapshot("s", "sum", bytes(100_000))
    assert phases(store) == {"before": "Queued"}
    assert store.events("lost-0") == []
    filler.unlink()
    store.write(group)
    assert len(phases(store)) == 51
    store.close()


def test_store_on_a_disk_that_is_full_already_is_refused_with_a_remedy(small_disk: Path) -> None:
    (small_disk / "state").mkdir(mode=0o700)
    fill_up(small_disk)
    with pytest.raises(StoreError, match="is the disk full"):
        Store(small_disk / "state")


# Files that cannot be used


def database(state: Path) -> Path:
    """A database with content, closed."""
    store = Store(state)
    store.write(whole_state())
    store.write([SaveRun(make_run(f"run-{number}"), "launched") for number in range(200)])
    store.close()
    return state / "coordinator.db"


def test_flipped_bytes_are_noticed_before_anything_is_believed(state: Path) -> None:
    path = database(state)
    content = bytearray(path.read_bytes())
    for offset in range(8_192, len(content) - 64, 4_096):
        content[offset : offset + 64] = bytes(byte ^ 0xFF for byte in content[offset : offset + 64])
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"(?s)coordinator\.db is damaged .*restore it from a backup"):
        Store(state)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("phase", "'sleeping'"),
        ("phase_data", "'{\"place\": '"),
        ("phase_data", "'{}'"),
        ("requirements", "'{\"labels\": 1}'"),
        ("policies", "'[]'"),
        ("spec", "x'ffff'"),
        ("outcome", "x'ffff'"),
        ("times", "'null'"),
        ("stop", "'{\"reason\": 1}'"),
    ],
    ids=lambda text: text.strip("'"),
)
def test_damage_inside_a_row_is_noticed_too(state: Path, column: str, value: str) -> None:
    path = database(state)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE runs SET {column} = {value} WHERE phase IN ('running', 'finished')")
    connection.close()
    store = Store(state)
    with pytest.raises(StoreError, match=r"(?s)coordinator\.db is damaged .*restore it from a backup"):
        store.load(NOW)
    store.close()


def test_truncated_file_is_noticed(state: Path) -> None:
    path = database(state)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match=r"coordinator\.db is damaged"):
        Store(state)


def test_file_that_is_no_database_is_refused_and_left_alone(state: Path) -> None:
    state.mkdir(mode=0o700)
    path = state / "coordinator.db"
    path.write_text("These are my notes.\n" * 100)
    with pytest.raises(StoreError, match=r"coordinator\.db is damaged .*move it away"):
        Store(state)
    assert path.read_text().startswith("These are my notes.")


def test_database_of_a_newer_version_is_refused_and_left_alone(state: Path) -> None:
    path = database(state)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match=r"newer Runyard \(this one knows schema 0005.*upgrade"):
        Store(state)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_second_coordinator_on_one_directory_is_refused_until_the_first_has_left(state: Path) -> None:
    first = Store(state)
    with pytest.raises(StoreError, match="in use by another coordinator; stop that one first"):
        Store(state)
    first.close()
    Store(state).close()


def test_directory_is_free_again_after_a_start_that_failed(state: Path) -> None:
    state.mkdir(mode=0o700)
    (state / "coordinator.db").write_text("nonsense " * 1_000)
    for _ in range(2):
        with pytest.raises(StoreError, match="is damaged"):
            Store(state)


def test_directory_on_a_read_only_disk_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "ro") as disk,
        pytest.raises(StoreError, match=r"Read-only file system.*make it writable"),
    ):
        Store(disk / "state")


def test_file_in_place_of_the_directory_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    with pytest.raises(StoreError, match=f"state_directory {path} cannot be .*choose another"):
        Store(path)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o702])
def test_directory_that_others_can_enter_is_refused_with_the_remedy(state: Path, mode: int) -> None:
    state.mkdir()
    state.chmod(mode)
    with pytest.raises(StoreError, match=rf"its mode is {mode:04o}.*`chmod 700 {state}`"):
        Store(state)
    state.chmod(0o700)
    Store(state).close()


def test_directory_of_another_user_is_refused_with_the_remedy(state: Path) -> None:
    state.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    with pytest.raises(StoreError, match=rf"belongs to user 65534.*`chown -R {os.geteuid()} {state}`"):
        Store(state)


def test_no_other_user_can_read_the_files_of_the_database(state: Path) -> None:
    store = Store(state)
    store.write(whole_state())
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    assert {"coordinator.db", "coordinator.db-wal"} <= set(files)
    assert [name for name, mode in files.items() if mode & 0o077] == []
    store.close()


CONTEXT = '{"docker": {"env_vars": ["A=canary"]}, "runyard": {"env_vars": ["A=canary"], "cpu": 1}}'


def holding_canaries(state: Path) -> list[str]:
    return [path.name for path in state.iterdir() if path.is_file() and b"canary" in path.read_bytes()]


def secret_run(number: int, phase: Phase) -> Run:
    """A run with secrets of different sizes, as the core saves it in that phase."""
    run = replace(make_run(f"run-{number}"), phase=phase)
    spec = run_pb2.LaunchSpec(
        worker_args="canary" * (1 + number * 97),
        environment={"A": f"canary{number}"},
        execution_config_json="canary",
        code_origin=run_pb2.CodeOrigin(container_context_json=CONTEXT),
    )
    launch = replace(run.launch, spec=spec)
    return replace(run, launch=launch.without_secrets() if isinstance(phase, Finished) else launch)


def test_no_file_holds_secrets_of_runs_that_are_over(state: Path) -> None:
    store = Store(state)
    store.drop_old_secrets()
    assert not store.has_old_secrets
    for number in range(60):
        for phase in (Queued(), Assigned(PLACE), Running(PLACE, 1), Finished(OUTCOME, PLACE)):
            store.write([SaveRun(secret_run(number, phase), "it moved on")])
    assert holding_canaries(state) != []
    assert store.has_old_secrets
    store.drop_old_secrets()
    assert holding_canaries(state) == []
    assert not store.has_old_secrets
    assert store.load(NOW).runs[0].launch.spec.code_origin.container_context_json == '{"runyard": {"cpu": 1}}'
    store.close()
    assert holding_canaries(state) == []


def test_errors_of_the_database_quote_no_row(state: Path) -> None:
    store = Store(state)
    run = secret_run(1, Queued())
    broken = replace(run, launch=replace(run.launch, job=object()))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="INSERT INTO runs") as failed:
        store.write([SaveRun(broken, "launched")])
    assert "canary" not in str(failed.value)
    store.close()


def test_new_state_directory_belongs_to_its_user_alone(state: Path) -> None:
    Store(state).close()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


# Files of earlier versions


def test_database_of_the_first_schema_opens_with_all_that_is_in_it(state: Path) -> None:
    state.mkdir(mode=0o700)
    shutil.copy(Path(__file__).parent / "data" / "schema_0001.db", state / "coordinator.db")
    store = Store(state)
    account = store.load(NOW)
    assert {run.run_id: type(run.phase).__name__.lower() for run in account.runs} == {
        run_id: run_id.partition("-")[0] if run_id != "adopted" else "running" for run_id in in_every_phase()
    }
    by_id = {run.run_id: run for run in account.runs}
    assert by_id["finished"].phase == Finished(OUTCOME, PLACE)
    assert by_id["queued-again"].phase == in_every_phase()["queued-again"].phase
    assert isinstance(by_id["queued"].phase, Queued)
    assert by_id["queued"].launch.spec.worker_args == "a secret"
    assert [node.node_id for node in account.nodes] == ["node-a"]
    assert set(account.tombstones) == {"buried"}
    assert store.has_snapshot("snapshot-1")
    assert [row["message"] for row in store.events("running")] == ["launched"]
    store.close()
