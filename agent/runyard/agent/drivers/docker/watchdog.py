"""Stops containers whose node has been without contact for too long, even if the agent is dead.

A process has its shim for that. A container has none, so the agent starts this program before the first
container with such a deadline:
`python -m runyard.agent.drivers.docker.watchdog STATE HOST [TLS_DIRECTORY]`.
It outlives the agent, and ends when there is nothing left to watch.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from runyard.agent.config.docker import DockerSettings
from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker.engine.client import Engine, EngineError, NameTaken, NotThere
from runyard.agent.drivers.docker.plan.labels import container_name
from runyard.agent.drivers.docker.plan.plan import DRIVER_NAME
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.contact import LONGEST_LOOK_AWAY, Fence
from runyard.agent.supervisor.records import SpecRecord, StopRequest, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory, RunDirectoryError
from runyard.agent.supervisor.stop_deadline import StopDeadline

IDLE_FOR = 60.0
"""Seconds with nothing to watch after which it ends."""

APPEARS_WITHIN = 10.0
"""Seconds for the program to start: Python and the `docker` package."""

_POLL = 0.05


class NoWatchdog(RunDirectoryError):
    """The program does not start; the message names its log."""


class WatchdogClient:
    """The agent's side: sees to it that there is a watchdog.

    Args:
        state: The agent's state directory.
        settings: Where the engine is.
    """

    def __init__(self, state: Path, settings: DockerSettings) -> None:
        self._state = state
        tls = [str(settings.tls_directory)] if settings.tls_directory else []
        self._command = [sys.executable, "-m", __name__, str(state), settings.host, *tls]

    def ensure(self) -> None:
        """Return when a watchdog is at work. Blocks.

        Raises:
            NoWatchdog: There is none, and none can be started.
        """
        if _is_held(self._state):
            return
        log = self._state / "docker-warden.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                cwd="/",
            )
        deadline = time.monotonic() + APPEARS_WITHIN
        while not _is_held(self._state):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoWatchdog(f"the watchdog of containers does not start; see {log}")
            time.sleep(_POLL)


class ContainerWatchdog:
    """Watches the fenced containers of one state directory.

    Args:
        directories: The attempts.
        engine: Where their containers are.
    """

    def __init__(self, directories: RunDirectories, engine: Engine) -> None:
        self._directories = directories
        self._engine = engine
        self._fences: dict[Path, Fence] = {}
        self._heeded: set[Path] = set()

    def watch(self) -> None:
        """Watch until there has been nothing to watch for a while."""
        idle_since = time.monotonic()
        while time.monotonic() < idle_since + IDLE_FOR:
            pause = LONGEST_LOOK_AWAY
            for directory in self._directories.scan():
                spec = _fenced_spec(directory)
                if spec is not None:
                    idle_since = time.monotonic()
                    with contextlib.suppress(RunDirectoryError, EngineError, UnreadableRecord, OSError):
                        pause = min(pause, self._enforce_fence(directory, spec))
            time.sleep(pause)

    def _enforce_fence(self, directory: RunDirectory, spec: SpecRecord) -> float:
        """Does what is due; returns after how many seconds to look again."""
        fence = self._fences.get(directory.path) or Fence.of(directory, spec)
        assert fence is not None, "only fenced attempts come here"
        self._fences[directory.path] = fence
        if directory.path not in self._heeded and fence.seconds_left() > 0:
            return max(_POLL, fence.look_in())
        directory.request_stop(fence.stop())
        stop = directory.read_stop() or fence.stop()
        return self._stop(directory, stop)

    def _stop(self, directory: RunDirectory, stop: StopRequest) -> float:
        name = container_name(AttemptKey(directory.run_id, directory.attempt))
        now = procfs.boottime()
        left = StopDeadline.from_request(stop, now, time.time()).seconds_left(now)
        with contextlib.suppress(NotThere, NameTaken):
            if directory.path not in self._heeded:
                self._engine.ask(lambda client: client.api.kill(name, "SIGTERM"))
                self._heeded.add(directory.path)
            if left <= 0:
                self._engine.ask(lambda client: client.api.kill(name, "SIGKILL"))
        return min(LONGEST_LOOK_AWAY, max(_POLL, left))


def _fenced_spec(directory: RunDirectory) -> SpecRecord | None:
    """The spec of a started container with such a deadline that is not known to be over."""
    try:
        if not directory.is_starting or directory.read_exit() is not None:
            return None
        spec = directory.read_spec()
    except (UnreadableRecord, OSError):
        return None
    is_fenced = spec is not None and spec.driver == DRIVER_NAME and spec.stop_after is not None
    return spec if is_fenced else None


def _open_lock(state: Path) -> int:
    return os.open(state / "docker-warden.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(state: Path) -> bool:
    descriptor = _open_lock(state)
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    """Watches, unless another does."""
    state, host, *tls = sys.argv[1:]
    lock = _open_lock(Path(state))
    if not _try_lock(lock):
        return
    settings = DockerSettings(host=host, tls_directory=Path(tls[0]) if tls else None)
    ContainerWatchdog(RunDirectories(Path(state)), Engine(settings)).watch()


if __name__ == "__main__":
    main()
