"""Detects that files which a server has read have changed since, so that no run executes old code.

It checks the files of all imported modules that were not installed as a package, every other file that was
read during the imports (settings, manifests, `.env`), the listings of directories that were searched (a new
module may appear there), and the places where packages are installed. A check costs one `stat` each. Compiled
files (`.pyc`) are ignored.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_CLOCK_STEP_SECONDS = 0.05
"""File systems stamp changes with a clock that lags behind the real one by a tick, at most 10 ms."""

_NO_CONTENT = ("/proc/", "/sys/", "/dev/")
_SOURCES = (".py", ".so", ".pth", ".yaml", ".yml", ".json", ".toml", ".sql", ".cfg", ".ini", ".env")
"""Files whose creation or deletion in a directory counts; logs and databases appear all the time."""


class ReadRecorder:
    """Records the files that are read during imports. One per process: Python never removes an audit hook."""

    def __init__(self) -> None:
        self._is_recording = False
        self._began = 0.0
        self._files: set[str] = set()
        self._directories: set[str] = set()
        sys.addaudithook(self._on_event)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record in this context."""
        self._began = self._began or time.time()
        self._is_recording = True
        try:
            yield
        finally:
            self._is_recording = False

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_recording:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if isinstance(path, (str, bytes)) and not writes:
                self._files.add(os.path.abspath(os.fsdecode(path)))
        elif event in ("os.listdir", "os.scandir"):
            path = arguments[0]
            if path is None or isinstance(path, (str, bytes)):
                self._directories.add(os.path.abspath(os.fsdecode(path or ".")))

    def snapshot(self, also: Iterable[str]) -> Snapshot:
        """Return the state of the recorded files.

        Args:
            also: Paths of files that count even if they do not exist yet.
        """
        installed = _installed_places()
        files = {path for path in {*self._files, *_module_files()} if _is_watched(path, installed)}
        directories = {path for path in self._directories if _is_watched(f"{path}/", installed)}
        return Snapshot({*files, *also}, directories, self._began)


class Snapshot:
    """State of the watched files when they were read.

    Args:
        files: Paths.
        directories: Paths of directories whose listing counts.
        began: Unix time in seconds before the first of them was read.
    """

    def __init__(self, files: Iterable[str], directories: Iterable[str], began: float) -> None:
        self._files = {path: _signature(path) for path in files}
        self._listings = {path: _listing(path) for path in directories}
        self._times = {path: _signature(path) for path in directories}
        places = {path: _signature(path) for path in _package_places()}
        self._places = {path: signature for path, signature in places.items() if signature is not None}
        self._suspect = [path for path, seen in self._files.items() if seen and seen[0] > _stamp(began)]

    def change(self) -> str | None:
        """Return the first change found, as a sentence; None if nothing changed."""
        if self._suspect:
            return f"{self._suspect[0]} changed while it was read"
        for path, seen in self._files.items():
            if _signature(path) != seen:
                return f"{path} has changed"
        for path, seen in self._places.items():
            if _signature(path) != seen:
                return f"packages in {path} have changed"
        for path in self._times:
            if self._has_other_sources(path):
                return f"files in {path} came or went"
        return None

    def __len__(self) -> int:
        return len(self._files) + len(self._listings) + len(self._places)

    def _has_other_sources(self, path: str) -> bool:
        now = _signature(path)
        if now == self._times[path]:
            return False
        if _listing(path) != self._listings[path]:
            return True
        self._times[path] = now
        return False


def _stamp(seconds: float) -> int:
    return int((seconds - _CLOCK_STEP_SECONDS) * 1e9)


def _signature(path: str) -> tuple[int, ...] | None:
    # The change time comes first: unlike the modification time it cannot be set, as `rsync -t` does.
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def _listing(path: str) -> frozenset[str]:
    try:
        with os.scandir(path) as entries:
            return frozenset(entry.name for entry in entries if _is_source(entry))
    except OSError:
        return frozenset()


def _is_source(entry: os.DirEntry[str]) -> bool:
    if entry.name.endswith(_SOURCES):
        return True
    return entry.is_dir() and not entry.name.startswith((".", "__pycache__"))


def _module_files() -> Iterator[str]:
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            yield os.path.abspath(path)


def _package_places() -> list[str]:
    """Places where packages are installed; an installation or an upgrade changes the directory itself."""
    places = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    return [*places, os.path.realpath(sys.executable), os.path.join(sys.prefix, "pyvenv.cfg")]


def _is_watched(path: str, installed: tuple[str, ...]) -> bool:
    return not path.startswith((*_NO_CONTENT, *installed)) and "/__pycache__" not in path


def _installed_places() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    places = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")}
    return tuple(f"{form}/" for place in places for form in {place, os.path.realpath(place)})
