"""The state of an attempt as disk and process table show it: one type per case."""

from dataclasses import dataclass

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import ExitRecord, WorkerRecord
from runyard.agent.supervisor.rundir import RunDirectory


@dataclass(frozen=True)
class Untouched:
    """No shim has set out to start the worker: it provably never ran, and may be started."""


@dataclass(frozen=True)
class Watched:
    """A shim lives and is in charge. `worker` is None until it is on record."""

    worker: WorkerRecord | None


@dataclass(frozen=True)
class NeverRan:
    """The shim died before the worker's program began. It is never started again under this attempt."""


@dataclass(frozen=True)
class Orphaned:
    """The shim is dead, the worker lives."""

    worker: WorkerRecord


@dataclass(frozen=True)
class Vanished:
    """Shim and worker are both gone, and `exit` is not on disk, or not yet."""

    worker: WorkerRecord


@dataclass(frozen=True)
class Rebooted:
    """The machine was restarted under the worker."""

    worker: WorkerRecord


@dataclass(frozen=True)
class Ended:
    """The exit record is on disk."""

    exit: ExitRecord


ObservedState = Untouched | Watched | NeverRan | Orphaned | Vanished | Rebooted | Ended


def inspect(directory: RunDirectory) -> ObservedState:
    """Looks at one attempt.

    Raises:
        UnreadableRecord: A file is damaged, or from a newer version.
    """
    # The order counts. A shim locks, then notes `starting`, and writes `exit` before it lets go of the lock.
    # So `starting` without a lock that is looked at later means a dead shim, and `exit` is looked at last.
    was_starting = directory.is_starting
    is_locked = directory.is_locked()
    exit_record = directory.read_exit()
    if exit_record is not None:
        return Ended(exit_record)
    if is_locked:
        return Watched(directory.read_worker())
    if not was_starting:
        return Untouched()
    worker = directory.read_worker()
    if worker is None:
        return NeverRan()
    if worker.boot_id != procfs.boot_id():
        return Rebooted(worker)
    return Orphaned(worker) if procfs.is_alive(worker.process) else Vanished(worker)
