"""The run directory: `<state>/runs/<run_id>/<attempt>/`, the one truth about an attempt on its node.

Agent, fork server and shim speak to each other through these files, so any of them may die at any moment:

    spec          what to start; written by the agent, before anything else
    starting      the attempt is never started again; by the shim, before it makes the worker
    worker        which process is the worker; by the shim, before the worker's program begins
    ready         the worker has its arguments, and all imports of its framework; by the worker, for people
    container     which container is the worker's, where it runs in one; by the agent
    stop          a request to end the worker; by the agent
    exit          how it ended; by the shim, or by whoever outlives it
    lock          locked for as long as the shim lives: a proof that PID reuse cannot forge
    acknowledged  the coordinator has the end, and the directory may be pruned
    stdout stderr what the worker wrote

A directory appears whole or not at all: it is filled under another name and then renamed. The rename fails if
the attempt exists, and so keeps it from being taken on twice. Standard library only.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from runyard.agent.records import (
    ContainerRecord,
    ExitRecord,
    Record,
    SpecRecord,
    StopRequest,
    UnreadableRecord,
    WorkerRecord,
)

EXIT_ROOM_BYTES = 8192
"""Set aside for `exit` when the directory is made: the end of a run that filled the disk is recorded too.

Above the largest record: `MESSAGE_LIMIT` characters of at most 4 bytes, and the numbers.
"""

MARK_NAME = "RUNYARD_ATTEMPT"
"""Environment variable that every process of an attempt carries: `<run_id>/<attempt>`."""

READY_ROOM_NAME = ".ready-room"
"""What a worker of another user writes to in place of `ready`: it is given the open file."""

DIRECTORY_NAME = "RUNYARD_RUN_DIRECTORY"
"""Environment variable beside it: the path of the run directory, and so whose attempt it is."""

R = TypeVar("R", bound=Record)

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNFINISHED_PREFIX = ".new-"
_DISCARDED_PREFIX = ".old-"
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of <fcntl.h> on 64-bit Linux


class Key(Protocol):
    """Names one attempt; `runyard.agent.core.model.AttemptKey` is one."""

    @property
    def run_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class RunDirectoryError(Exception):
    """The run directory cannot do what was asked of it; the message names the path and the remedy."""


class InvalidKey(RunDirectoryError, ValueError):
    """The run ID or the attempt number cannot name a directory."""


class AttemptExists(RunDirectoryError):
    """The attempt is on this disk already; it is not started a second time."""


class NoRoom(RunDirectoryError):
    """The disk, or the user's quota, is full."""


class NotWritable(RunDirectoryError):
    """The state directory refuses this user, or is mounted read-only."""


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(f"cannot write {path}: {reason}; free space on that disk") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NotWritable(
                f"cannot write {path}: {reason}; make it writable for the agent's user"
            ) from error
        raise RunDirectoryError(f"cannot write {path}: {reason}") from error


class RunDirectory:
    """The files of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        """ID of the run that the attempt belongs to."""
        return self.path.parent.name

    @property
    def attempt(self) -> int:
        """Number of the attempt."""
        return int(self.path.name)

    @property
    def state(self) -> Path:
        """The agent's state directory, which holds this one."""
        return self.path.parent.parent.parent

    @property
    def mark(self) -> str:
        """The value of `MARK_NAME` in the environment of every process of the attempt."""
        return f"{self.run_id}/{self.attempt}"

    @property
    def stdout(self) -> Path:
        """What the worker wrote to stdout."""
        return self.path / "stdout"

    @property
    def stderr(self) -> Path:
        """What the worker wrote to stderr."""
        return self.path / "stderr"

    def read_spec(self) -> SpecRecord | None:
        """What to start; None for an attempt that was born finished.

        Raises:
            UnreadableRecord: The file is damaged, or from a newer version.
        """
        return self._read("spec", SpecRecord)

    def read_worker(self) -> WorkerRecord | None:
        """Which process is the worker; None before it was made.

        Raises:
            UnreadableRecord: The file is damaged, or from a newer version.
        """
        return self._read("worker", WorkerRecord)

    def read_container(self) -> ContainerRecord | None:
        """Which container is the worker's; None before it was seen to run.

        Raises:
            UnreadableRecord: The file is damaged, or from a newer version.
        """
        return self._read("container", ContainerRecord)

    def read_stop(self) -> StopRequest | None:
        """The request to end the worker, if there is one.

        Raises:
            UnreadableRecord: The file is damaged, or from a newer version.
        """
        return self._read("stop", StopRequest)

    def read_exit(self) -> ExitRecord | None:
        """How the attempt ended; None if that is not on disk.

        Raises:
            UnreadableRecord: The file is damaged, or from a newer version.
        """
        return self._read("exit", ExitRecord)

    @property
    def is_starting(self) -> bool:
        """True once somebody has set out to make the worker: nobody else ever may."""
        return (self.path / "starting").exists()

    @property
    def is_ready(self) -> bool:
        """True once the worker has its arguments and has imported its framework."""
        if (self.path / "ready").exists():
            return True
        try:
            return (self.path / READY_ROOM_NAME).stat().st_size > 0
        except FileNotFoundError:
            return False

    @property
    def acknowledged_at(self) -> float | None:
        """Unix time in seconds at which the coordinator had the end; None while it has not."""
        try:
            return (self.path / "acknowledged").stat().st_mtime
        except FileNotFoundError:
            return None

    def mark_starting(self) -> None:
        """Notes for ever that a worker is about to be made. Called under the lock, or by the only agent.

        Raises:
            AttemptExists: That was noted before.
        """
        with _clear_errors(self.path):
            self._touch("starting")

    def acknowledge(self) -> None:
        """Notes that the coordinator has the end, and deletes the spec's secrets. Repeats change nothing."""
        with contextlib.suppress(AttemptExists), _clear_errors(self.path):
            self._touch("acknowledged")
        self._empty_in_spec(env={}, worker_args="", fingerprints=[])

    def forget_secrets(self) -> None:
        """Deletes the secrets of the spec, but not their fingerprints. Repeats change nothing.

        Called when the worker has begun or is over: nobody will start it again, so nobody needs them.
        """
        self._empty_in_spec(env={}, worker_args="")

    def _empty_in_spec(self, **fields: Any) -> None:
        with contextlib.suppress(UnreadableRecord):
            spec = self.read_spec()
            if spec is not None and (emptied := replace(spec, **fields)) != spec:
                self._replace("spec", emptied)

    def write_worker(self, worker: WorkerRecord) -> None:
        """Notes which process is the worker."""
        self._replace("worker", worker)

    def write_container(self, container: ContainerRecord) -> None:
        """Notes which container is the worker's."""
        self._replace("container", container)

    def request_stop(self, stop: StopRequest) -> None:
        """Leaves a stop request; an earlier one stays unless it gave more time."""
        earlier = self.read_stop()
        if earlier is not None:
            if earlier.grace_seconds <= stop.grace_seconds:
                return
            stop = replace(stop, cause=earlier.cause)  # what came first is why the worker ends
        self._replace("stop", stop)

    def write_exit(self, exit_record: ExitRecord) -> bool:
        """Notes how the attempt ended, unless that is on disk already.

        Returns:
            False if another process noted it first; what it noted stands.
        """
        with _clear_errors(self.path):
            aside = self._write_exit_aside(exit_record)
            try:
                os.link(aside, self.path / "exit")
            except FileExistsError:
                return False
            finally:
                os.unlink(aside)
            _sync_directory(self.path)
        return True

    def try_lock(self) -> int | None:
        """Takes the lock for this process; None if another holds it.

        Returns:
            A descriptor. The lock lasts until its last copy is closed, at the latest until the process ends.
        """
        with _clear_errors(self.path / "lock"):
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        return descriptor

    def is_locked(self) -> bool:
        """True while a shim lives. Only looks: a probe never makes a shim believe that it came second."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        finally:
            os.close(descriptor)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def _read(self, name: str, kind: type[R]) -> R | None:
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return kind.decode(data)
        except UnreadableRecord as error:
            raise UnreadableRecord(f"{self.path / name}: {error}") from error

    def _touch(self, name: str) -> None:
        try:
            descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise AttemptExists(f"{self.path / name} exists: the attempt got there before") from error
        os.close(descriptor)
        _sync_directory(self.path)

    def _replace(self, name: str, record: Record) -> None:
        with _clear_errors(self.path):
            aside = self._aside(name)
            _write_and_sync(aside, record.encode())
            os.rename(aside, self.path / name)
            _sync_directory(self.path)

    def _aside(self, name: str) -> Path:
        return self.path / f".{name}-{os.getpid()}-{time.monotonic_ns()}"

    def _write_exit_aside(self, exit_record: ExitRecord) -> Path:
        aside = self._aside("exit")
        # Whoever gets the reserved room by this rename has it alone; without it a new file must do.
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path / ".exit-room", aside)
        _write_and_sync(aside, exit_record.encode().ljust(EXIT_ROOM_BYTES))
        return aside


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
        with _clear_errors(self._runs):
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
        """Puts an attempt on disk, ready to start. When this returns, it survives a power cut.

        Raises:
            InvalidKey: The key cannot name a directory.
            AttemptExists: The attempt is on this disk already.
            NoRoom, NotWritable: The disk is full, or refuses this user.
        """
        return self._create(key, "spec", spec)

    def create_refused(self, key: Key, verdict: ExitRecord) -> RunDirectory:
        """Puts an attempt on disk that is over before it began: an assignment that comes later is too late.

        Raises:
            InvalidKey, AttemptExists, NoRoom, NotWritable: As for `create`.
        """
        return self._create(key, "exit", verdict)

    def scan(self) -> list[RunDirectory]:
        """Every attempt on disk, by run ID and number."""
        found = []
        for run in sorted(self._runs.iterdir()):
            if _RUN_ID.fullmatch(run.name):
                numbers = sorted(int(path.name) for path in run.iterdir() if path.name.isdecimal())
                found += [RunDirectory(run / str(number)) for number in numbers]
        return found

    def prune(self, keep_count: int, keep_age_seconds: float) -> list[RunDirectory]:
        """Deletes acknowledged attempts that are older than the age, or beyond the newest `keep_count`.

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
        """Deletes what a crash left half made or half deleted. Called once, when the agent starts."""
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
        with _clear_errors(path):
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED_PREFIX, dir=self._runs))
            try:
                _write_and_sync(unfinished / name, record.encode())
                _write_and_sync(unfinished / "lock", b"")
                _write_and_sync(unfinished / ".exit-room", b" " * EXIT_ROOM_BYTES)
                _sync_directory(unfinished)
                self._publish(unfinished, path)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        return RunDirectory(path)

    def _publish(self, unfinished: Path, path: Path) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(self._runs)
        try:
            os.rename(unfinished, path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise AttemptExists(f"{path} exists: the attempt is on this node already") from error
            raise
        _sync_directory(path.parent)

    def _discard(self, directory: RunDirectory) -> None:
        discarded = self._runs / f"{_DISCARDED_PREFIX}{directory.run_id}-{directory.attempt}-{os.getpid()}"
        with contextlib.suppress(OSError):
            os.rename(directory.path, discarded)
            directory.path.parent.rmdir()
        shutil.rmtree(discarded, ignore_errors=True)


def _write_and_sync(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except OSError:
        os.unlink(path)  # a retry takes another name, and there may be many
        raise
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
