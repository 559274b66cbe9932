"""What the run directory keeps, refuses and deletes."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from agent.node_side import KEY, shell

import runyard.agent.supervisor
from runyard.agent.core.model import AttemptKey
from runyard.agent.supervisor.exit_records import never_started
from runyard.agent.supervisor.records import ExitRecord, SpecRecord, StopRequest, UnreadableRecord
from runyard.agent.supervisor.rundir import (
    AttemptExists,
    InvalidKey,
    NoRoom,
    NotWritable,
    RunDirectories,
    RunDirectory,
)

SPEC = SpecRecord(
    ["/bin/true", "ü"], {"A": "b"}, cwd="/tmp", worker_args="{}", identity={"job": "etl"}, driver="process"
)


def test_a_new_agent_reads_what_the_old_one_wrote(directories: RunDirectories) -> None:
    directories.create(KEY, SPEC)
    found = RunDirectories(directories.state).open(KEY)
    assert found is not None
    assert found.read_spec() == SPEC
    assert (found.run_id, found.attempt, found.mark) == ("run-a", 1, "run-a/1")


def test_what_holds_secrets_is_closed_to_other_users(directories: RunDirectories) -> None:
    directory = directories.create(KEY, SPEC)
    assert directory.path.stat().st_mode & 0o077 == 0
    assert (directory.path / "spec").stat().st_mode & 0o077 == 0


def test_an_attempt_is_created_once_however_many_try(directories: RunDirectories) -> None:
    barrier = threading.Barrier(8)

    def create(_: int) -> bool:
        barrier.wait()
        try:
            directories.create(KEY, SPEC)
        except AttemptExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1
    assert [path.name for path in (directories.state / "runs").iterdir()] == ["run-a"]


def test_a_refused_attempt_can_never_be_created(directories: RunDirectories) -> None:
    directory = directories.create_refused(KEY, never_started("stopped", "stopped before it came"))
    with pytest.raises(AttemptExists, match="on this node already"):
        directories.create(KEY, SPEC)
    assert directory.read_spec() is None
    found = directory.read_exit()
    assert found is not None
    assert found.cause == "stopped"


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "../up", ".new-x", "a\n", "x" * 129])
def test_a_run_id_that_is_no_file_name_is_refused(directories: RunDirectories, run_id: str) -> None:
    with pytest.raises(InvalidKey, match="run ID"):
        directories.create(AttemptKey(run_id, 1), SPEC)
    with pytest.raises(InvalidKey, match="run ID"):
        directories.open(AttemptKey(run_id, 1))


def test_a_negative_attempt_is_refused(directories: RunDirectories) -> None:
    with pytest.raises(InvalidKey, match="attempt -1"):
        directories.create(AttemptKey("run-a", -1), SPEC)


def test_the_first_verdict_stands(directories: RunDirectories) -> None:
    directory = directories.create(KEY, SPEC)
    assert directory.write_exit(ExitRecord("exited", "first", 1.0, code=3))
    assert not directory.write_exit(ExitRecord("exit_unknown", "second", 2.0))
    assert directory.read_exit() == ExitRecord("exited", "first", 1.0, code=3)


def test_a_message_of_any_length_and_alphabet_fits_the_room_that_was_set_aside(
    directories: RunDirectories,
) -> None:
    directory = directories.create(KEY, SPEC)
    directory.write_exit(ExitRecord("start_failed", "\U0001f600\udce4" * 10_000, 1.0))
    found = directory.read_exit()
    assert found is not None
    assert found.message.startswith("\U0001f600?")
    assert (directory.path / "exit").stat().st_size == 8192


def test_starting_is_noted_once(directories: RunDirectories) -> None:
    directory = directories.create(KEY, SPEC)
    assert not directory.is_starting
    directory.mark_starting()
    assert directory.is_starting
    with pytest.raises(AttemptExists):
        directory.mark_starting()


def test_a_stop_request_only_ever_gets_more_urgent(directories: RunDirectories) -> None:
    directory = directories.create(KEY, SPEC)
    for grace in (30.0, 5.0, 60.0):
        directory.request_stop(StopRequest(grace, f"within {grace}", 1.0))
    assert directory.read_stop() == StopRequest(5.0, "within 5.0", 1.0)


def test_the_lock_is_free_once_its_holder_is_killed(directories: RunDirectories) -> None:
    directory = directories.create(KEY, SPEC)
    script = (
        "import sys, time; from pathlib import Path; "
        "from runyard.agent.supervisor.rundir import RunDirectory;"
        "assert RunDirectory(Path(sys.argv[1])).try_lock(); print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(directory.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert directory.is_locked()
        assert directory.try_lock() is None
        holder.kill()
    assert not directory.is_locked()
    lock = directory.try_lock()
    assert lock is not None
    os.close(lock)


def test_fields_from_a_newer_agent_are_ignored(directories: RunDirectories) -> None:
    directory = directories.create(KEY, SPEC)
    (directory.path / "stop").write_text(
        '{"version": 1, "grace_seconds": 5, "reason": "r", "requested_at": 1, "colour": "blue"}'
    )
    assert directory.read_stop() == StopRequest(5, "r", 1)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"version": 2, "cause": "exited"}', "upgrade this agent"),
        ('{"version": 1, "cause": "exited"}', "not a ExitRecord"),
        ("[]", "not a ExitRecord"),
        ("", "not a ExitRecord"),
        ("\0\0\0", "not a ExitRecord"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(
    directories: RunDirectories, content: str, complaint: str
) -> None:
    directory = directories.create(KEY, SPEC)
    (directory.path / "exit").write_text(content)
    with pytest.raises(UnreadableRecord, match=complaint) as caught:
        directory.read_exit()
    assert str(directory.path / "exit") in str(caught.value)


def test_scan_gives_attempts_in_order_and_nothing_else(directories: RunDirectories) -> None:
    for key in (AttemptKey("b", 10), AttemptKey("b", 9), AttemptKey("a", 1)):
        directories.create(key, SPEC)
    (directories.state / "runs" / ".new-half").mkdir()
    assert [(each.run_id, each.attempt) for each in directories.scan()] == [("a", 1), ("b", 9), ("b", 10)]
    directories.sweep_unfinished()
    assert not (directories.state / "runs" / ".new-half").exists()


def test_prune_deletes_what_is_acknowledged_and_old_or_too_much(directories: RunDirectories) -> None:
    finished = [directories.create(AttemptKey(f"run-{number}", 1), SPEC) for number in range(5)]
    for age, directory in enumerate(finished[:4]):
        directory.write_exit(ExitRecord("exited", "", 1.0, code=0))
        directory.acknowledge()
        _age(directory, seconds=age * 100)
    assert _names(directories.prune(keep_count=3, keep_age_seconds=150.0)) == ["run-2", "run-3"]
    assert _names(directories.prune(keep_count=1, keep_age_seconds=150.0)) == ["run-1"]
    assert _names(directories.prune(keep_count=0, keep_age_seconds=0.0)) == ["run-0"]
    assert _names(directories.scan()) == ["run-4"]
    assert sorted(path.name for path in (directories.state / "runs").iterdir()) == ["run-4"]


def _age(directory: RunDirectory, seconds: float) -> None:
    marker = directory.path / "acknowledged"
    at = marker.stat().st_mtime - seconds
    os.utime(marker, (at, at))


def _names(found: list[RunDirectory]) -> list[str]:
    return sorted(directory.run_id for directory in found)


def test_acknowledging_twice_changes_nothing(directories: RunDirectories) -> None:
    directory = directories.create(KEY, SPEC)
    assert directory.acknowledged_at is None
    directory.acknowledge()
    first = directory.acknowledged_at
    directory.acknowledge()
    assert directory.acknowledged_at == first is not None


def test_no_secret_stays_on_disk_once_the_attempt_is_acknowledged(directories: RunDirectories) -> None:
    directory = directories.create(KEY, shell("true", worker_args="hunter2"))
    directory.write_exit(ExitRecord("exited", "", 1.0, code=0))
    directory.acknowledge()
    assert not [path for path in directory.path.iterdir() if b"hunter2" in path.read_bytes()]
    spec = directory.read_spec()
    assert spec is not None
    assert (spec.env, spec.argv) == ({}, ["/bin/sh", "-c", "true"])


def test_a_full_disk_refuses_new_attempts_and_leaves_no_trace(small_disk: Path) -> None:
    directories = RunDirectories(small_disk / "state")
    with pytest.raises(NoRoom, match="free space on that disk"):
        directories.create(KEY, shell("x" * 2_000_000))
    assert directories.scan() == []
    assert list((small_disk / "state" / "runs").iterdir()) == []
    directories.create(KEY, SPEC)


def test_a_read_only_disk_is_named_with_the_remedy(small_disk: Path) -> None:
    directories = RunDirectories(small_disk / "state")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(NotWritable, match="make it writable for the agent's user"):
        directories.create(KEY, SPEC)
    with pytest.raises(NotWritable, match=str(small_disk)):
        RunDirectories(small_disk / "other")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_loading_the_whole_supervisor_loads_only_the_standard_library() -> None:
    folder = Path(runyard.agent.supervisor.__file__).parent
    # These two are programs: loading them would run them, or load Dagster.
    files = [path for path in folder.rglob("*.py") if path.name not in ("__init__.py", "boot.py")]
    parts = [".".join(path.relative_to(folder).with_suffix("").parts) for path in files]
    names = ", ".join(f"runyard.agent.supervisor.{name}" for name in parts)
    script = f"import sys; old = set(sys.modules); import {names}; print(*set(sys.modules) - old)"
    command = [sys.executable, "-I", "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    foreign = {name for name in loaded if name.partition(".")[0] not in (*sys.stdlib_module_names, "runyard")}
    assert not foreign
    ours = {name for name in loaded if name.startswith("runyard.")}
    assert all(name.startswith("runyard.agent.supervisor") for name in ours - {"runyard.agent"})
