"""State directories, which only their owner may enter, as they hold secrets."""

import os
import stat
from pathlib import Path


class NotPrivate(Exception):
    """Other users can enter a state directory; the message holds the remedy."""


def make_private(directory: Path, setting: str) -> None:
    """Create a directory that only this user can enter, or check that an existing one is private.

    Args:
        directory: The directory; missing parents are created too.
        setting: Name of its setting, for messages.

    Raises:
        NotPrivate: Another user owns it, or others may enter it.
        OSError: It cannot be created.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise NotPrivate(
            f"{setting} {directory} belongs to user {found.st_uid}, and this process runs as {os.geteuid()}; "
            f"`chown -R {os.geteuid()} {directory}`, or choose another"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise NotPrivate(
            f"{setting} {directory} can be entered by others (its mode is {mode:04o}), and it holds secrets; "
            f"`chmod 700 {directory}`"
        )
