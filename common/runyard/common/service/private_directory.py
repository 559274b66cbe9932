"""State directories: for their owner's eyes alone, as they hold secrets."""

import os
import stat
from pathlib import Path


class NotPrivate(Exception):
    """Others can reach what is kept in a state directory; the message holds the remedy."""


def make_private(directory: Path, setting: str) -> None:
    """Makes a directory that only this user can enter, or sees to it that the one that is there is such.

    Args:
        directory: With its parents, if they are missing.
        setting: What names it, for messages.

    Raises:
        NotPrivate: It belongs to somebody else, or others may enter it.
        OSError: It cannot be made.
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
