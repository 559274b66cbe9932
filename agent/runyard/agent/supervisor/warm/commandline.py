"""Command and environment that `ps` and /proc show. A fork shows those of its parent until they are replaced.

Other processes find those of an attempt by their initial environment, so a fork must put its variables where
the kernel reads them: in the memory at the top of the stack. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Mapping, Sequence

ROOM_NAME = "RUNYARD_WARM_ROOM"
"""A variable that only reserves space in the environment, for the variables of forks."""

ROOM_BYTES = 6000
"""Above the longest path, with the names of the variables: PATH_MAX is 4096 bytes."""


def show_command(argv: Sequence[str]) -> None:
    """Make /proc show this command for this process, as far as there is room."""
    with contextlib.suppress(OSError, ValueError):
        _fill(_regions()[0], [argument.encode() for argument in argv])


def take_environment(environment: Mapping[str, str], first: Sequence[str]) -> None:
    """Replace the environment of this process, and make /proc show it, as far as there is room.

    Args:
        environment: All variables.
        first: Names of the variables that must be visible.
    """
    # The C library's list points into the memory that is overwritten, until each variable has been set again.
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    names = [*first, *(name for name in environment if name not in first)]
    with contextlib.suppress(OSError, ValueError):
        _fill(_regions()[1], [f"{name}={environment[name]}".encode() for name in names])


def _regions() -> tuple[range, range]:
    with open("/proc/self/stat", "rb") as file:
        line = file.read()
    # Counted from the third field: arg_start, arg_end, env_start and env_end are fields 48 to 51 (proc(5)).
    fields = [int(field) for field in line[line.rindex(b")") + 2 :].split()[45:49]]
    return range(fields[0], fields[1]), range(fields[2], fields[3])


def _fill(region: range, entries: list[bytes]) -> None:
    content = b""
    for entry in entries:
        if len(content) + len(entry) < len(region):
            content += entry + b"\0"
    if len(region):
        ctypes.memmove(region.start, content.ljust(len(region), b"\0"), len(region))
