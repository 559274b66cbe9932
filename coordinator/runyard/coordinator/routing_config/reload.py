"""Follows the routing file while the coordinator runs."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog

from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.coordinator.core.events.on_policy import changes, on_policy
from runyard.coordinator.core.scheduling.policy import WITHOUT_RULES
from runyard.coordinator.routing_config.reading import Routing, load_routing
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.store import StoreFull

INTERVAL: Final = 1.0
"""Seconds between two looks at the file."""

log = structlog.get_logger("runyard.coordinator")


@dataclass(frozen=True)
class Stamp:
    """What changes whenever a file is replaced or written."""

    modified_ns: int
    size: int
    inode: int

    @classmethod
    def of(cls, file: Path) -> Self | None:
        """The file's stamp now; None if it is not there. Blocks."""
        try:
            status = file.stat()
        except OSError:
            return None
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


@dataclass(frozen=True)
class Version:
    """A state of the file that can be used, and how to tell it from the next."""

    stamp: Stamp | None
    routing: Routing


WITHOUT_FILE: Final = Version(None, Routing(WITHOUT_RULES))


def read_version(file: Path) -> Version:
    """Reads the file as it is now. Blocks.

    Raises:
        InvalidYamlFile: It cannot be used.
    """
    stamp = Stamp.of(file)  # taken first: what is written meanwhile has another
    return Version(stamp, load_routing(file))


class RoutingReload:
    """Has the fleet placed by the routing file as it is now; a file that cannot be used changes nothing.

    Args:
        file: The routing file.
        runtime: Has the fleet decide.
        version: What is in force.
    """

    def __init__(self, file: Path, runtime: Runtime, version: Version) -> None:
        self._file = file
        self._runtime = runtime
        self._policy = version.routing.policy
        self._known = version.stamp
        self._before = version.stamp
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Has the file read at once, changed or not."""
        self._asked.set()

    async def follow(self) -> None:
        """Looks at the file again and again, until it is cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            if asked or await self._has_changed():
                await self._read()

    async def _has_changed(self) -> bool:
        """True once a change is complete: an editor may be in the midst of writing."""
        stamp = await asyncio.to_thread(Stamp.of, self._file)
        settled, self._before = stamp == self._before, stamp
        return settled and stamp != self._known

    async def _read(self) -> None:
        self._known = await asyncio.to_thread(Stamp.of, self._file)
        try:
            version = await asyncio.to_thread(read_version, self._file)
        except InvalidYamlFile as error:
            log.error("routing_file_refused", error=str(error), in_force="the rules before")
            return
        policy = version.routing.policy
        self._known = version.stamp
        try:
            moved = await self._runtime.decide(lambda fleet, at: on_policy(fleet, at, policy))
        except StoreFull:
            self._known = None  # what was decided for waiting runs was taken back: the next look repeats it
            return
        warn_of(version.routing)
        log.info("routing_file_loaded", changed=changes(self._policy, policy), runs_changed=moved)
        self._policy = policy


def warn_of(routing: Routing) -> None:
    """Logs what may be a slip."""
    for each in routing.warnings:
        log.warning("routing_file_suspicious", line=each.line, setting=each.key, warning=each.message)
