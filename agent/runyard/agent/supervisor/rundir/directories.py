"""All attempts on one disk: made, found and pruned. Standard library only."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Protocol

from runyard.agent.supervisor.records import ExitRecord, Record, SpecRecord
from runyard.agent.supervisor.rundir.directory import EXIT_ROOM_BYTES, RunDirectory
from runyard.agent.supervisor.rundir.durable import sync_directory, write_and_sync
from runyard.agent.supervisor.rundir.errors import AttemptExists, InvalidKey, clear_errors

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNFINISHED_PREFIX = ".new-"
_DISCARDED_PREFIX = ".old-"


class Key(Protocol):
    """Names one attempt; `runyard.agent.core.model.AttemptKey` is one."""

    @property
    def run_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class RunDirectories:
    """All attempts in one state directory, of which there is one per agent.

    Args:
        state: The agent's state directory; made if it is missing, for this user alone.

    Raises:
        NotWritable: The directory refuses this user.
    """

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self._runs = self.state / "runs"
        with clear_errors(self._runs):
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._runs.mkdir(mode=0o700, exist_ok=True)

    def open(self, key: Key) -> RunDirectory | None:
        """The directory of an attempt; None if there is none.

        Raises:
            InvalidKey: The key cannot name a directory.
        """
        path = self._path(key)
        return RunDirectory(path) if path.is_dir() else None

    def create(self, key: Key, spec: SpecRecord) -> RunDirectory:
        """Put an attempt on disk, ready to start. When this returns, it survives a power cut.

        Raises:
            InvalidKey: The key cannot name a directory.
            AttemptExists: The attempt is on this disk already.
            NoRoom, NotWritable: The disk is full, or refuses this user.
        """
        return self._create(key, "spec", spec)

    def create_refused(self, key: Key, exit_record: ExitRecord) -> RunDirectory:
        """Put an attempt on disk that is over before it began: an assignment that comes later is too late.

        Raises:
            InvalidKey, AttemptExists, NoRoom, NotWritable: As for `create`.
        """
        return self._create(key, "exit", exit_record)

    def scan(self) -> list[RunDirectory]:
        """Every attempt on disk, by run ID and number."""
        found = []
        for run in sorted(self._runs.iterdir()):
            if _RUN_ID.fullmatch(run.name):
                numbers = sorted(int(path.name) for path in run.iterdir() if path.name.isdecimal())
                found += [RunDirectory(run / str(number)) for number in numbers]
        return found

    def prune(self, keep_count: int, keep_age_seconds: float) -> list[RunDirectory]:
        """Delete acknowledged attempts that are older than the age, or beyond the newest `keep_count`.

        Args:
            keep_count: How many acknowledged attempts may stay.
            keep_age_seconds: For how long after the acknowledgement.

        Returns:
            What was deleted. An attempt whose end the coordinator does not have is never among them.
        """
        aged = [(directory.acknowledged_at, directory) for directory in self.scan()]
        acknowledged = sorted(((at, each) for at, each in aged if at is not None), key=lambda pair: -pair[0])
        oldest_kept = time.time() - keep_age_seconds
        doomed = [
            directory
            for rank, (at, directory) in enumerate(acknowledged)
            if rank >= keep_count or at < oldest_kept
        ]
        for directory in doomed:
            self._discard(directory)
        return doomed

    def sweep_unfinished(self) -> None:
        """Delete what a crash left half made or half deleted. Called once, when the agent starts."""
        for path in self._runs.iterdir():
            if path.name.startswith((_UNFINISHED_PREFIX, _DISCARDED_PREFIX)):
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, key: Key) -> Path:
        if not _RUN_ID.fullmatch(key.run_id):
            raise InvalidKey(f"run ID {key.run_id!r}: use letters, digits, '.', '_' and '-', at most 128")
        if key.attempt < 0:
            raise InvalidKey(f"attempt {key.attempt} of run {key.run_id}: must not be negative")
        return self._runs / key.run_id / str(key.attempt)

    def _create(self, key: Key, name: str, record: Record) -> RunDirectory:
        path = self._path(key)
        if path.exists():
            raise AttemptExists(f"{path} exists: the attempt is on this node already")
        with clear_errors(path):
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED_PREFIX, dir=self._runs))
            try:
                write_and_sync(unfinished / name, record.encode())
                write_and_sync(unfinished / "lock", b"")
                write_and_sync(unfinished / ".exit-room", b" " * EXIT_ROOM_BYTES)
                sync_directory(unfinished)
                self._publish(unfinished, path)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        return RunDirectory(path)

    def _publish(self, unfinished: Path, path: Path) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self._runs)
        try:
            os.rename(unfinished, path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise AttemptExists(f"{path} exists: the attempt is on this node already") from error
            raise
        sync_directory(path.parent)

    def _discard(self, directory: RunDirectory) -> None:
        discarded = self._runs / f"{_DISCARDED_PREFIX}{directory.run_id}-{directory.attempt}-{os.getpid()}"
        with contextlib.suppress(OSError):
            os.rename(directory.path, discarded)
            directory.path.parent.rmdir()
        shutil.rmtree(discarded, ignore_errors=True)
