"""An agent recovers attempts from the state directory of an agent of version 0.1.0."""

import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from compatibility.comparing import differences, private_copy, recorded
from compatibility.readers import read_installation, read_run_directories, read_run_directory

ATTEMPTS: dict[str, Any] = recorded("agent.json")["attempts"]

FLOCK = struct.Struct("hhqqi4x")  # struct flock of <fcntl.h> on 64-bit Linux


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return private_copy("agent", tmp_path)


def test_every_attempt_is_found(state: Path) -> None:
    assert set(read_run_directories(state)) == set(ATTEMPTS)


@pytest.mark.parametrize("mark", ATTEMPTS)
def test_attempt_is_read_to_the_same_values(state: Path, mark: str) -> None:
    run_id, _, attempt = mark.partition("/")
    assert differences(ATTEMPTS[mark], read_run_directory(state, run_id, int(attempt))) == []


def test_agent_keeps_its_installation_id_and_epoch(state: Path) -> None:
    assert differences(recorded("agent.json")["installation"], read_installation(state)) == []


def test_worker_that_outlived_its_shim_is_recovered_as_running(state: Path) -> None:
    become_worker(state / "runs" / "live" / "1")
    found = read_run_directory(state, "live", 1)
    assert found["situation"] == "orphaned"
    assert differences({"is": "running", "pid": os.getpid()}, found["held"]["phase"]) == []


def test_shim_that_holds_its_lock_is_found_running(state: Path) -> None:
    directory = state / "runs" / "live" / "1"
    become_worker(directory)
    with (directory / "lock").open("r+b") as lock:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        assert read_run_directory(state, "live", 1)["situation"] == "watched"


def test_worker_with_a_stop_request_is_recovered_as_stopping(state: Path) -> None:
    become_worker(state / "runs" / "stopping" / "1")
    found = read_run_directory(state, "stopping", 1)
    assert differences({"is": "stopping", "pid": os.getpid()}, found["held"]["phase"]) == []


def become_worker(directory: Path) -> None:
    """Record this process as the worker, as on a machine that was not restarted."""
    record = json.loads((directory / "worker").read_text())
    start_time = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record.update(pid=os.getpid(), start_time=start_time, boot_id=boot_id)
    (directory / "worker").write_text(json.dumps(record))
