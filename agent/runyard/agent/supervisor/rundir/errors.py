"""Errors of run directories, with messages that name the remedy. Standard library only."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class RunDirectoryError(Exception):
    """A run directory cannot be read or written; the message names the path and the remedy."""


class InvalidKey(RunDirectoryError, ValueError):
    """The run ID or the attempt number cannot name a directory."""


class AttemptExists(RunDirectoryError):
    """The attempt is on this disk already; it is not started a second time."""


class DirectoryGone(RunDirectoryError):
    """The run directory is not there: it was deleted, or its disk is away; see `RunDirectory.is_deleted`."""


class NoRoom(RunDirectoryError):
    """The disk, or the user's quota, is full."""


class NotWritable(RunDirectoryError):
    """The state directory refuses this user, or is mounted read-only."""


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Raise the operating system's errors in the block as one of the errors above."""
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
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise DirectoryGone(f"cannot write {path}: {reason}; its run directory is not there") from error
        raise RunDirectoryError(f"cannot write {path}: {reason}") from error
