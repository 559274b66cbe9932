"""Writes that survive a power cut. Standard library only."""

import os
from pathlib import Path


def write_and_sync(path: Path, data: bytes) -> None:
    """Write a file that is on disk when this returns, and not there if this fails."""
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


def sync_directory(path: Path) -> None:
    """Make created, renamed and deleted names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
