"""One reporter for each process and deployment, in a daemon thread, while someone needs it."""

import atexit
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from runyard.launcher.reporter.reporter import Reporter

logger = logging.getLogger(__name__)

# What a process may spend on the reporter when it ends or drops its Dagster instance, in seconds.
_STOP_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Deployment:
    """What a reporter reports for: a coordinator, and a deployment's name there."""

    address: str
    name: str


@dataclass
class _Running:
    reporter: Reporter
    thread: threading.Thread
    owners: set[int] = field(default_factory=set)


class ReporterThreads:
    """The reporters of this process. Several launchers share one; the last that lets go of it stops it."""

    def __init__(self) -> None:
        self._forget()

    def keep(self, deployment: Deployment, owner: object, make: Callable[[], Reporter]) -> None:
        """Makes sure that a reporter runs.

        Args:
            deployment: What it reports for.
            owner: Who needs it, until `release`.
            make: Makes the reporter if there is none.
        """
        with self._lock:
            running = self._running.get(deployment)
            if running is None or not running.thread.is_alive():
                running = _start(deployment, make())
                self._running[deployment] = running
            running.owners.add(id(owner))

    def release(self, owner: object) -> None:
        """Stops the reporters that only `owner` still needs, and waits a moment for their end."""
        with self._lock:
            for running in self._running.values():
                running.owners.discard(id(owner))
            unneeded = [deployment for deployment, running in self._running.items() if not running.owners]
            stopping = [self._running.pop(deployment) for deployment in unneeded]
        _stop(stopping)

    def stop_all(self) -> None:
        """Stops every reporter: the process ends."""
        with self._lock:
            stopping = list(self._running.values())
            self._running.clear()
        _stop(stopping)

    def _forget(self) -> None:
        """Starts anew: a forked child has not the parent's threads, and its lock may be held for ever."""
        self._lock = threading.Lock()
        self._running: dict[Deployment, _Running] = {}


REPORTERS: Final = ReporterThreads()
os.register_at_fork(after_in_child=REPORTERS._forget)
atexit.register(REPORTERS.stop_all)


def _start(deployment: Deployment, reporter: Reporter) -> _Running:
    thread = threading.Thread(target=reporter.run, name=f"runyard-reporter-{deployment.name}", daemon=True)
    thread.start()
    logger.debug("Reporting for deployment %s of the coordinator at %s", deployment.name, deployment.address)
    return _Running(reporter, thread)


def _stop(stopping: list[_Running]) -> None:
    for running in stopping:
        running.reporter.stop()
    for running in stopping:
        if running.thread is not threading.current_thread():
            running.thread.join(_STOP_SECONDS)
