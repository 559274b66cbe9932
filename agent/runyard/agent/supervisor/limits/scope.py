"""Ask systemd for a scope whose control group is delegated to us. Standard library only."""

from __future__ import annotations

import os
import time
from pathlib import Path

ANSWER_WITHIN = 5.0
"""Seconds for systemd to make a scope; it takes it milliseconds."""

_MOUNTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")


def enter(unit: str, keeper: int, worker: int) -> Path:
    """Move two processes into a new scope, which lives for as long as the keeper does.

    Args:
        unit: Name of the scope.
        keeper: PID of the process that outlives the worker, if it is left alone.
        worker: PID of a process that is to be put into a group below the scope's.

    Returns:
        The directory of the scope's control group, in which groups with limits can be made.

    Raises:
        OSError: systemd does not answer, or refuses.
    """
    _call(unit, keeper, worker)
    home = _home_of(unit, keeper)
    try:
        (home / "keeper").mkdir()
        for pid in (keeper, worker):
            (home / "keeper" / "cgroup.procs").write_text(str(pid))
        (home / "cgroup.subtree_control").write_text("+memory +cpu")
    except OSError as error:
        raise OSError(f"the scope {unit} is not ours to divide: {error}") from error
    return home


def directory_of(pid: int) -> Path | None:
    """The control group of version 2 that a process is in."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    name = next((line[3:] for line in lines if line.startswith("0::")), None)
    mounts = [each for each in _MOUNTS if (each / "cgroup.controllers").exists()]
    return mounts[0] / name.lstrip("/") if name is not None and mounts else None


def _call(unit: str, keeper: int, worker: int) -> None:
    import subprocess  # only here: other shims need none of it

    whose = [] if os.geteuid() == 0 else ["--user"]
    properties = ["3", "PIDs", "au", "2", str(keeper), str(worker), "Delegate", "b", "true"]
    properties += ["CollectMode", "s", "inactive-or-failed"]
    command = ["busctl", *whose, "call", *_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail"]
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}", **os.environ}
    try:
        subprocess.run(
            [*command, *properties, "0"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_WITHIN,
            check=True,
            env=environment,
        )
    except subprocess.CalledProcessError as error:
        raise OSError(f"systemd refuses the scope {unit}: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise OSError(f"systemd did not answer within {ANSWER_WITHIN:g} s") from error


def _home_of(unit: str, pid: int) -> Path:
    deadline = time.monotonic() + ANSWER_WITHIN
    while time.monotonic() < deadline:
        directory = directory_of(pid)
        if directory is not None and directory.name == unit:
            return directory
        time.sleep(0.005)
    raise OSError(f"systemd did not make the scope {unit} within {ANSWER_WITHIN:g} s")
