"""Copies a container's output into the run directory, once and complete, across crashes of either side.

The engine keeps the output with a time stamp for every piece. How far the copy has come is kept beside it,
for each stream: the stamp of the last piece, how many pieces with that stamp there were, and the size of the
file then. After a crash the files are cut back to those sizes, and the copy goes on from there.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from runyard.agent.drivers.docker.engine.client import Engine
from runyard.agent.supervisor.rundir import RunDirectory

SILENCE = 60.0
"""Seconds without output after which the stream is opened again: it may be that of a frozen engine."""

_SAVE_EVERY = 1.0
_HEADER_BYTES = 8  # of a piece: stream, three zeros, length as a big-endian number
_STREAMS = {1: "stdout", 2: "stderr"}


@dataclass
class Position:
    """Position of the copy of one stream."""

    stamp: str = ""
    """Of the last piece; empty before the first."""
    pieces: int = 0
    """How many with that stamp there were."""
    size: int = 0
    """Of the file, in bytes."""


@dataclass
class Positions:
    """Positions of the copies."""

    stdout: Position = field(default_factory=Position)
    stderr: Position = field(default_factory=Position)

    def of(self, stream: str) -> Position:
        """Of one stream."""
        return self.stdout if stream == "stdout" else self.stderr

    def since(self) -> int:
        """Unix time in whole seconds from which on there may be pieces that were not copied."""
        stamps = (self.stdout.stamp, self.stderr.stamp)
        if not all(stamps):
            return 0
        return int(min(datetime.fromisoformat(stamp).timestamp() for stamp in stamps))


class OutputCopy:
    """The copy of one container's output.

    Args:
        engine: Where the container is.
        container: Its name.
        directory: Of its attempt.
    """

    def __init__(self, engine: Engine, container: str, directory: RunDirectory) -> None:
        self._engine = engine
        self._container = container
        self._files = {"stdout": directory.stdout, "stderr": directory.stderr}
        self._record = directory.path / "output"
        self._lock = threading.Lock()
        self._positions: Positions | None = None
        self._saved_at = 0.0
        self._is_closed = False

    def begin(self) -> None:
        """Start the copy after the present content of the files. Called before the container starts."""
        with self._lock:
            sizes = {name: path.stat().st_size if path.exists() else 0 for name, path in self._files.items()}
            self._positions = Positions(*(Position(size=sizes[name]) for name in ("stdout", "stderr")))
            for path in self._files.values():
                path.touch(mode=0o600)
            self._save()

    def copy(self, *, follow: bool) -> None:
        """Copy new output until the container has ended or, without `follow`, to its present end. Blocks.

        Raises:
            EngineError: The engine does not answer, or not any more.
            OSError: The disk is full.
        """
        with self._lock:
            positions = self._restored()
            since = positions.since()
            behind = {name: _CatchingUp(positions.of(name)) for name in self._files}
        parameters = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow), "since": since}
        response = self._engine.stream(f"containers/{self._container}/logs", parameters, SILENCE)
        with contextlib.closing(response):
            for stream, stamp, data in _pieces(self._engine, response.raw):
                if behind[stream].is_new(stamp) and not self._append(stream, stamp, data):
                    return
        with self._lock:
            if not self._is_closed:
                self._save()

    def close(self) -> None:
        """End the copy: from now on no thread writes."""
        with self._lock:
            if not self._is_closed and self._positions is not None:
                with contextlib.suppress(OSError):
                    self._save()
            self._is_closed = True

    def _append(self, stream: str, stamp: str, data: bytes) -> bool:
        """Write a piece down; false if the copy has been closed."""
        with self._lock:
            if self._is_closed:
                return False
            with self._files[stream].open("ab") as file:
                file.write(data)
            position = self._restored().of(stream)
            position.pieces = position.pieces + 1 if position.stamp == stamp else 1
            position.stamp = stamp
            position.size += len(data)
            if time.monotonic() > self._saved_at + _SAVE_EVERY:
                self._save()
        return True

    def _restored(self) -> Positions:
        """The positions; on first use they are those on disk, and the files are made to fit."""
        if self._positions is None:
            self._positions = _read(self._record)
            for name, path in self._files.items():
                position = self._positions.of(name)
                if not path.exists() or path.stat().st_size < position.size:
                    # The disk has lost what it had not written down: so the engine sends all of it again.
                    position.stamp, position.pieces, position.size = "", 0, 0
                path.touch(mode=0o600)
                os.truncate(path, position.size)
        return self._positions

    def _save(self) -> None:
        aside = self._record.with_name(".output")
        aside.write_text(json.dumps(asdict(self._restored())))
        os.rename(aside, self._record)
        self._saved_at = time.monotonic()


class _CatchingUp:
    """Recognises, at the start of a read, the pieces of a stream that were copied before.

    From the first new one on, all are new: also when the clock was set back meanwhile.
    """

    def __init__(self, position: Position) -> None:
        self._stamp = position.stamp
        self._repeats = position.pieces
        self._is_over = False

    def is_new(self, stamp: str) -> bool:
        """True if the next piece of a stream, with that timestamp, was not copied before."""
        if self._is_over:
            return True
        if stamp == self._stamp and self._repeats:
            self._repeats -= 1
            return False
        self._is_over = stamp >= self._stamp
        return self._is_over


class _Readable(Protocol):
    def read(self, amt: int) -> bytes: ...


def _pieces(engine: Engine, raw: _Readable) -> Iterator[tuple[str, str, bytes]]:
    """Takes the engine's stream apart: each piece with the name of its stream, and its stamp."""
    while True:
        with engine.named_errors():
            header = raw.read(_HEADER_BYTES)
            piece = raw.read(int.from_bytes(header[4:], "big")) if len(header) == _HEADER_BYTES else b""
        if not piece:
            return
        stamp, _, data = piece.partition(b" ")
        yield _STREAMS.get(header[0], "stdout"), stamp.decode(), data


def _read(record: Path) -> Positions:
    try:
        values = json.loads(record.read_text())
        return Positions(Position(**values["stdout"]), Position(**values["stderr"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Positions()


def note(directory: RunDirectory, line: str) -> None:
    """Write a line of Runyard's own to the attempt's stderr, before its worker begins."""
    with contextlib.suppress(OSError), directory.stderr.open("a") as file:
        os.chmod(directory.stderr, 0o600)
        file.write(f"runyard: {line}\n")
