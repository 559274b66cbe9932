"""Reporter threads: one per process and deployment, as long as a launcher needs it."""

import atexit
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from runyard.launcher.reporter.reporter import Reporter

logger = logging.getLogger(__name__)

# Seconds to wait for a reporter when its process exits or disposes of its Dagster instance.
_STOP_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Deployment:
    """Key of a reporter: the coordinator's address and the deployment's name there."""

    address: str
    name: str


@dataclass
class _Running:
    reporter: Reporter
    thread: threading.Thread
    owners: set[int] = field(default_factory=set)


class ReporterThreads:
    """Reporters of this process, shared by its launchers. The last launcher to release one stops it."""

    def __init__(self) -> None:
        self._forget()

    def keep(self, deployment: Deployment, owner: object, make: Callable[[], Reporter]) -> None:
        """Start the reporter of a deployment unless it is running.

        Args:
            deployment: Key of the reporter.
            owner: The launcher that needs it, until `release`.
            make: Called to create the reporter if there is none.
        """
        with self._lock:
            running = self._running.get(deployment)
            if running is None or not running.thread.is_alive():
                running = _start(deployment, make())
                self._running[deployment] = running
            running.owners.add(id(owner))

    def release(self, owner: object) -> None:
        """Stop the reporters that only `owner` still needs, and wait briefly for them to end."""
        with self._lock:
            for running in self._running.values():
                running.owners.discard(id(owner))
            unneeded = [deployment for deployment, running in self._running.items() if not running.owners]
            stopping = [self._running.pop(deployment) for deployment in unneeded]
        _stop(stopping)

    def stop_all(self) -> None:
        """Stop every reporter; called when the process exits."""
        with self._lock:
            stopping = list(self._running.values())
            self._running.clear()
        _stop(stopping)

    def _forget(self) -> None:
        """Reset in a forked child, which has none of the parent's threads and may have copied a held lock."""
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
