"""Atomic, durable writes of small files.

`runyard.agent.supervisor` has its own `sync_directory`, as it may import the standard library only.
"""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole. The content is on disk on return; a crash leaves the old or the new content.

    Args:
        path: The file. Its directory must exist.
        content: The whole content.
        mode: Permissions, also while the file is written.

    Raises:
        OSError: The write failed; the old content is kept.
    """
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make created, renamed and deleted names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
