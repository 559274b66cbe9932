"""The agent's state directory: used by one agent at a time, and identified by an ID."""

import fcntl
import os
import uuid
from pathlib import Path

from runyard.agent.supervisor.rundir.durable import sync_directory
from runyard.common.service.private_directory import NotPrivate, make_private

_NAME = "installation"


class StateError(Exception):
    """The state directory cannot be used; the message names the reason and the remedy."""


class Installation:
    """Exclusive use of a state directory until the process ends.

    Attributes:
        id: Created with the directory; distinguishes two agents with the same node ID.

    Raises:
        StateError: The directory is not writable, open to others, or another agent holds it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            make_private(directory, "state_directory")
            self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except NotPrivate as error:
            raise StateError(str(error)) from error
        except OSError as error:
            raise _unusable(directory, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise StateError(
                f"state_directory {directory} is in use by another agent; stop that one first, "
                "or give this one another state_directory"
            ) from None
        try:
            self.id = _read_or_make_id(directory)
        except OSError as error:
            os.close(self._fd)
            raise _unusable(directory, error) from error

    @property
    def last_epoch(self) -> int:
        """Largest stored epoch; 0 if there is none."""
        try:
            return int((self._directory / "epoch").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def note_epoch(self, epoch: int) -> None:
        """Store the epoch of a session, unless a larger one is stored.

        Raises:
            OSError: The disk refuses.
        """
        if epoch <= self.last_epoch:
            return
        # Written in place with a constant length, so that it works on a full disk.
        descriptor = os.open(self._directory / "epoch", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, f"{epoch:020}\n".encode(), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._directory)

    def release(self) -> None:
        """Release the directory for another agent."""
        os.close(self._fd)


def _unusable(directory: Path, error: OSError) -> StateError:
    return StateError(
        f"state_directory {directory} cannot be used ({error.strerror}); "
        "make it writable for this user, free some space, or choose another"
    )


def _read_or_make_id(directory: Path) -> str:
    path = directory / _NAME
    if path.exists() and (name := path.read_text().strip()):
        return name
    name = uuid.uuid4().hex
    aside = directory / f".{_NAME}"
    with aside.open("w") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    sync_directory(directory)
    return name
