"""The files of one attempt. Standard library only."""

import contextlib
import fcntl
import os
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from runyard.agent.supervisor.records import (
    ContainerRecord,
    ExitRecord,
    Record,
    SpecRecord,
    StopRequest,
    UnreadableRecord,
    WorkerRecord,
)
from runyard.agent.supervisor.rundir.durable import sync_directory, write_and_sync
from runyard.agent.supervisor.rundir.errors import AttemptExists, clear_errors

EXIT_ROOM_BYTES = 8192
"""Set aside for `exit` when the directory is made: the end of a run that filled the disk is recorded too.

Above the largest record: `MESSAGE_LIMIT` characters of at most 4 bytes, and the numbers.
"""

MARK_NAME = "RUNYARD_ATTEMPT"
"""Environment variable that every process of an attempt carries: `<run_id>/<attempt>`."""

EXCEEDED_NAME = "exceeded"
"""A file that says that the worker went beyond its memory limit."""

READY_ROOM_NAME = ".ready-room"
"""What a worker of another user writes to in place of `ready`: it is given the open file."""

DIRECTORY_NAME = "RUNYARD_RUN_DIRECTORY"
"""Environment variable beside it: the path of the run directory, and so whose attempt it is."""

R = TypeVar("R", bound=Record)

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of <fcntl.h> on 64-bit Linux


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
        """Output of the worker on stdout."""
        return self.path / "stdout"

    @property
    def stderr(self) -> Path:
        """Output of the worker on stderr."""
        return self.path / "stderr"

    def read_spec(self) -> SpecRecord | None:
        """The spec; None for an attempt that was finished from the start.

        Raises:
            UnreadableRecord: The file is damaged, or from a newer version.
        """
        return self._read("spec", SpecRecord)

    def read_worker(self) -> WorkerRecord | None:
        """The record of the worker's process; None before the process was made.

        Raises:
            UnreadableRecord: The file is damaged, or from a newer version.
        """
        return self._read("worker", WorkerRecord)

    def read_container(self) -> ContainerRecord | None:
        """The record of the worker's container; None before it was seen to run.

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
        """The exit record; None if it is not on disk.

        Raises:
            UnreadableRecord: The file is damaged, or from a newer version.
        """
        return self._read("exit", ExitRecord)

    @property
    def is_deleted(self) -> bool:
        """True if the directory is gone and the folder of all runs is there.

        If that is missing too, the disk is away (unmounted, moved): the directory may come back.
        """
        return not self.path.is_dir() and self.path.parent.parent.is_dir()

    @property
    def is_starting(self) -> bool:
        """True once a shim has set out to start the worker: no other ever may."""
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
        """Note for ever that a worker is about to be made. Called under the lock, or by the only agent.

        Raises:
            AttemptExists: That was noted before.
        """
        with clear_errors(self.path):
            self._touch("starting")

    def acknowledge(self) -> None:
        """Notes that the coordinator has the end, and deletes the spec's secrets. Repeats change nothing."""
        with contextlib.suppress(AttemptExists), clear_errors(self.path):
            self._touch("acknowledged")
        self._empty_in_spec(env={}, worker_args="", fingerprints=[])

    def forget_secrets(self) -> None:
        """Delete the secrets of the spec, but not their fingerprints. Repeats change nothing.

        Called when the worker has begun or is over: it is never started again, so they are not needed.
        """
        self._empty_in_spec(env={}, worker_args="")

    def replace_argv(self, argv: list[str]) -> None:
        """Replace the command of an attempt that has not been started.

        Raises:
            UnreadableRecord: The spec is damaged, or from a newer version.
            RunDirectoryError: The disk is full, or refuses this user.
        """
        spec = self.read_spec()
        if spec is not None and not self.is_starting:
            self._replace("spec", replace(spec, argv=argv))

    def _empty_in_spec(self, **fields: Any) -> None:
        with contextlib.suppress(UnreadableRecord):
            spec = self.read_spec()
            if spec is not None and (emptied := replace(spec, **fields)) != spec:
                self._replace("spec", emptied)

    def write_worker(self, worker: WorkerRecord) -> None:
        """Note which process is the worker."""
        self._replace("worker", worker)

    def write_container(self, container: ContainerRecord) -> None:
        """Note which container is the worker's."""
        self._replace("container", container)

    def request_stop(self, stop: StopRequest) -> None:
        """Leave a stop request; an earlier one stays unless it gave more time."""
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
        with clear_errors(self.path):
            aside = self._write_exit_aside(exit_record)
            try:
                os.link(aside, self.path / "exit")
            except FileExistsError:
                return False
            finally:
                os.unlink(aside)
            sync_directory(self.path)
        return True

    def try_lock(self) -> int | None:
        """Take the lock for this process; None if another holds it.

        Returns:
            A descriptor. The lock lasts until its last copy is closed, at the latest until the process ends.
        """
        with clear_errors(self.path / "lock"):
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
        sync_directory(self.path)

    def _replace(self, name: str, record: Record) -> None:
        with clear_errors(self.path):
            aside = self._aside(name)
            write_and_sync(aside, record.encode())
            os.rename(aside, self.path / name)
            sync_directory(self.path)

    def _aside(self, name: str) -> Path:
        return self.path / f".{name}-{os.getpid()}-{time.monotonic_ns()}"

    def _write_exit_aside(self, exit_record: ExitRecord) -> Path:
        aside = self._aside("exit")
        # Only one process gets the reserved room by this rename; without it a new file must do.
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path / ".exit-room", aside)
        write_and_sync(aside, exit_record.encode().ljust(EXIT_ROOM_BYTES))
        return aside
