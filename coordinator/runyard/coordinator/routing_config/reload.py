"""Reload of the routing file while the coordinator runs."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog

from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.coordinator.core.events.on_config_change import changes, on_config_change
from runyard.coordinator.core.scheduling.config import DEFAULT_CONFIG
from runyard.coordinator.routing_config.reading import Routing, load_routing
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.store import StoreFull

INTERVAL: Final = 1.0
"""Seconds between two checks of the file."""

log = structlog.get_logger("runyard.coordinator")


@dataclass(frozen=True)
class Stamp:
    """Metadata that changes whenever a file is replaced or written."""

    modified_ns: int
    size: int
    inode: int

    @classmethod
    def of(cls, file: Path) -> Self | None:
        """Return the file's stamp; None if there is no file. Blocks."""
        try:
            status = file.stat()
        except OSError:
            return None
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


@dataclass(frozen=True)
class Version:
    """A valid content of the file, with its stamp."""

    stamp: Stamp | None
    routing: Routing


WITHOUT_FILE: Final = Version(None, Routing(DEFAULT_CONFIG))


def read_version(file: Path) -> Version:
    """Read the file. Blocks.

    Raises:
        InvalidYamlFile: The file cannot be used.
    """
    stamp = Stamp.of(file)  # before the content: a write in between then shows as another change
    return Version(stamp, load_routing(file))


class RoutingReload:
    """Keeps the fleet's policy equal to the routing file; an invalid file changes nothing.

    Args:
        file: The routing file.
        runtime: Applies a new policy to the fleet.
        version: The file's version in force.
    """

    def __init__(self, file: Path, runtime: Runtime, version: Version) -> None:
        self._file = file
        self._runtime = runtime
        self._config = version.routing.config
        self._known = version.stamp
        self._before = version.stamp
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Read the file now, changed or not."""
        self._requested.set()

    async def follow(self) -> None:
        """Check the file periodically, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._requested.wait()
            requested = self._requested.is_set()
            self._requested.clear()
            if requested or await self._has_changed():
                await self._read()

    async def _has_changed(self) -> bool:
        """True if the file changed, and stayed the same for one interval: no editor is writing."""
        stamp = await asyncio.to_thread(Stamp.of, self._file)
        settled, self._before = stamp == self._before, stamp
        return settled and stamp != self._known

    async def _read(self) -> None:
        self._known = await asyncio.to_thread(Stamp.of, self._file)
        try:
            version = await asyncio.to_thread(read_version, self._file)
        except InvalidYamlFile as error:
            log.error("routing_file_refused", error=str(error), in_force="the previous rules")
            return
        config = version.routing.config
        self._known = version.stamp
        try:
            moved = await self._runtime.decide(lambda fleet, at: on_config_change(fleet, at, config))
        except StoreFull:
            self._known = None  # the decision was rolled back: repeat it at the next check
            return
        warn_of(version.routing)
        log.info("routing_file_loaded", changed=changes(self._config, config), runs_changed=moved)
        self._config = config


def warn_of(routing: Routing) -> None:
    """Log the warnings of a routing file."""
    for each in routing.warnings:
        log.warning("routing_file_suspicious", line=each.line, setting=each.key, warning=each.message)
