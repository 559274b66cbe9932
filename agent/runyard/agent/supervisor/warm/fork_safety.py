"""Finds what a fork cannot inherit from a server: threads, connections, open files, shared memory.

Anything found here makes the server unusable, with the reason. Its runs then start cold, as they do without
warm servers. Nothing that imported code created is closed or repaired.
"""

from __future__ import annotations

import builtins
import fcntl
import json
import os
import signal
import stat
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from runyard.agent.supervisor.warm.randomness import numpy_generators

UNFORKABLE = {
    "eventlet": "it replaces parts of the standard library",
    "gevent": "it replaces parts of the standard library",
    "jax": "it cannot be used in a fork",
    "polars": "used in a fork, it waits for ever for threads that only its parent has",
    "pyspark.java_gateway": "a fork would share the connection to the Java process",
    "ray": "a fork would share its connections",
    "tensorflow": "it cannot be used in a fork",
}
"""Modules that must not be imported before a fork, and why."""

THREADED = ("numpy", "pandas", "pyarrow", "sklearn", "torch", "polars", "scipy")
"""Modules that may start threads when they are imported; named in the message about threads."""

_HARMLESS = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def _needed() -> dict[str, object]:
    return {
        "open": builtins.open,
        "fcntl.fcntl": fcntl.fcntl,
        "json.dumps": json.dumps,
        "json.loads": json.loads,
        "os._exit": os._exit,
        "os.fork": os.fork,
        "os.read": os.read,
        "os.wait4": os.wait4,
        "os.write": os.write,
        "signal.signal": signal.signal,
        "signal.sigwaitinfo": signal.sigwaitinfo,
        "time.sleep": time.sleep,
        "time.time": time.time,
    }


_ORIGINALS = _needed()
"""Functions that shims need, as they were before the imports."""


def obstacle(own_descriptors: Iterable[int]) -> str | None:
    """Return the reason why this process must not be forked for runs; None if it may be.

    Args:
        own_descriptors: File descriptors that are the server's own.
    """
    for look in (_modules, _threads, _shared_memory, _replacements, _temporary_directories, _generators):
        for reason in look():
            return reason
    return next(_descriptors(frozenset(own_descriptors)), None)


def threads() -> str | None:
    """As `obstacle`, for threads only: they may appear at any time."""
    return next(_threads(), None)


def _modules() -> Iterator[str]:
    for name, reason in UNFORKABLE.items():
        if name in sys.modules:
            yield f"{name} was imported: {reason}"


def _threads() -> Iterator[str]:
    extra = len(os.listdir("/proc/self/task")) - 1
    if extra:
        suspects = [name for name in THREADED if name in sys.modules]
        blamed = f"; known to start some: {', '.join(suspects)}" if suspects else ""
        yield f"importing started {extra} thread(s), which a fork would lack{blamed}"


def _descriptors(own: frozenset[int]) -> Iterator[str]:
    for number in sorted(open_descriptors() - own - {0, 1, 2}):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        if target in _HARMLESS:
            continue
        if stat.S_ISSOCK(mode):
            yield f"importing left a connection open ({target}), which forks would share"
        elif stat.S_ISREG(mode):
            yield f"importing left the file {target} open, whose position forks would share"
        else:
            yield f"importing left {target} open, which forks would share"


def open_descriptors() -> set[int]:
    """All file descriptors of this process."""
    return {int(name) for name in os.listdir("/proc/self/fd") if _is_open(int(name))}


def _is_open(descriptor: int) -> bool:
    # The list contains the descriptor that it was read with.
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _shared_memory() -> Iterator[str]:
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if fields[1].startswith("rw") and fields[1].endswith("s"):
                what = fields[5].strip() if len(fields) > 5 else "memory"
                yield f"importing mapped {what} as shared memory, which forks would all write to"


def _replacements() -> Iterator[str]:
    for name, function in _needed().items():
        if function is not _ORIGINALS[name]:
            yield f"importing replaced {name}, which the shims of its forks rely on"


def _temporary_directories() -> Iterator[str]:
    registry: dict[Any, Any] = getattr(weakref.finalize, "_registry", {})
    for info in list(registry.values()):
        function = getattr(info, "func", None)
        if getattr(function, "__func__", None) is tempfile.TemporaryDirectory._cleanup.__func__:  # type: ignore[attr-defined]
            yield "importing made a temporary directory, which the first fork to end would delete"


def _generators() -> Iterator[str]:
    if numpy_generators():
        yield "importing made a random generator of numpy's, whose numbers all forks would share"
