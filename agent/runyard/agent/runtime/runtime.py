"""Takes events one by one, asks the core for a decision, and carries out its effects in order."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import structlog

from runyard.agent.admission.admission import Admission, Admitted, AlreadyOnDisk, Rejected
from runyard.agent.admission.secrets_on_disk import SecretsOnDisk
from runyard.agent.core.effects import Accept, Bury, Effect, Forget, Reject, Report, Start, StopWorker
from runyard.agent.core.model import Assignment, AttemptKey, Finished, HeldAttempt, Outcome, OutcomeKind
from runyard.agent.core.reconcile import AttemptTable
from runyard.agent.drivers.base import DriverError
from runyard.agent.drivers.outcomes import held_attempt
from runyard.agent.runtime.driver_set import DriverSet
from runyard.agent.runtime.events import (
    Acknowledged,
    Assigned,
    Event,
    EventQueue,
    PhaseChanged,
    StopRequested,
)
from runyard.agent.supervisor.exit_records import never_started
from runyard.agent.supervisor.procfs import boottime
from runyard.agent.supervisor.rundir import AttemptExists, RunDirectories, RunDirectoryError
from runyard.common.backoff import Backoff
from runyard.common.service.failpoints import failpoint

RETRY_STOP = Backoff(first=5.0, longest=5.0)
"""Pauses between attempts to write a stop request to a disk that refuses it."""

log = structlog.get_logger("runyard.agent")

SendReport = Callable[[Report | Reject], None]
"""Sends a report to the coordinator without waiting."""


class Runtime:
    """Owner of the attempts on this node.

    Args:
        events: Source of events; sessions and drivers put them in.
        directories: The attempts on this disk.
        drivers: Start and stop workers.
        admission: Accepts or rejects assignments.
    """

    def __init__(
        self, events: EventQueue, directories: RunDirectories, drivers: DriverSet, admission: Admission
    ) -> None:
        self._events = events
        self._directories = directories
        self._drivers = drivers
        self._admission = admission
        self._table = AttemptTable()
        self._secrets = SecretsOnDisk(directories)
        self._send_report: SendReport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._is_closing = False

    async def open(self) -> None:
        """Open the drivers and adopt the attempts on disk. Call it before the first session.

        Raises:
            DriverError: A driver cannot work on this machine.
        """
        found = await self._drivers.open()
        log.info("recovered", attempts=len(found))
        for held in found:
            await self._secrets.forget(held)
        await self._carry_out(self._table.on_recovered(found))

    async def run(self) -> None:
        """Process events. Never returns."""
        while True:
            event = await self._events.take()
            await self._carry_out(self._decide(event))
            self._changed.set()

    async def close(self) -> None:
        """Stop background tasks and drivers. The workers keep running."""
        for task in self._tasks:
            task.cancel()
        await self._drivers.close()

    # State, for sessions and the shutdown

    @property
    def is_closing(self) -> bool:
        """True if the machine shuts down and no assignment is accepted."""
        return self._is_closing

    def attempts(self) -> list[HeldAttempt]:
        """Return the full set of held attempts."""
        return self._table.all()

    def is_over(self, key: AttemptKey) -> bool:
        """True if an attempt has ended, or is not held."""
        held = self._table.get(key)
        return held is None or isinstance(held.phase, Finished)

    @contextlib.contextmanager
    def reporting_to(self, send_report: SendReport) -> Iterator[None]:
        """Send reports to a session for the length of the block."""
        self._send_report = send_report
        try:
            yield
        finally:
            self._send_report = None

    def stop_accepting(self) -> None:
        """Accept no more assignments."""
        self._is_closing = True

    async def until_settled(self, keys: Sequence[AttemptKey]) -> None:
        """Wait until the attempts have ended and, during a session, the coordinator has stored their ends."""
        while any(self._is_unsettled(key) for key in keys):
            self._changed.clear()
            await self._changed.wait()

    def _is_unsettled(self, key: AttemptKey) -> bool:
        held = self._table.get(key)
        return held is not None and (not isinstance(held.phase, Finished) or self._send_report is not None)

    # Events

    def _decide(self, event: Event) -> list[Effect]:
        match event:
            case Assigned(assignment) if self._is_void(assignment):
                # The coordinator repeats it with a new deadline for as long as it wants the run here.
                late = boottime() - assignment.start_by
                log.info("offer_not_taken", attempt=str(assignment.key), late=late)
                return []
            case Assigned(assignment):
                return self._table.on_assign(assignment)
            case StopRequested(key, grace, reason):
                return self._table.on_stop(key, grace, reason)
            case Acknowledged(key):
                return self._table.on_acknowledged(key)
            case PhaseChanged(key, phase):
                return self._table.on_change(key, phase)

    def _is_void(self, assignment: Assignment) -> bool:
        return self._is_closing or boottime() > assignment.start_by

    # Effects

    async def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            await self._carry_out(await self._do(effect))

    async def _do(self, effect: Effect) -> list[Effect]:
        match effect:
            case Accept(assignment):
                return await self._accept(assignment)
            case Bury():
                return await self._bury(effect)
            case Start(key):
                return await self._start(key)
            case StopWorker():
                self._in_background(self._stop(effect))
            case Forget(key):
                await self._forget(key)
            case Report(held):
                phase = type(held.phase).__name__.lower()
                failpoint(f"agent.before_report_{phase}")
                log.info("attempt", attempt=str(held.key), phase=phase)
                self._report(effect)
                self._in_background(self._secrets.forget(held))
            case Reject(key, message):
                log.warning("rejected", attempt=str(key), reason=message)
                self._report(effect)
        return []

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report(self, report: Report | Reject) -> None:
        if self._send_report is not None:
            self._send_report(report)

    async def _accept(self, assignment: Assignment) -> list[Effect]:
        key = assignment.key
        match await self._admission.admit(assignment, self._table.all()):
            case AlreadyOnDisk():
                return await self._found(key)
            case Rejected(message, reason_code):
                return self._table.on_not_accepted(key, message, reason_code)
            case Admitted(identity, devices) if self._is_void(assignment):
                return self._table.on_postponed(key, identity, devices)
            case Admitted(identity, devices):
                return self._table.on_accepted(key, identity, devices)

    async def _bury(self, effect: Bury) -> list[Effect]:
        failpoint("agent.before_bury")
        verdict = never_started("stopped", f"stopped before it started: {effect.reason}")
        try:
            await asyncio.to_thread(self._directories.create_refused, effect.key, verdict)
        except AttemptExists:
            pass
        except RunDirectoryError as error:
            # Nothing was reported to the coordinator, so it repeats the stop.
            log.error("cannot_bury", attempt=str(effect.key), error=str(error))
            return []
        return await self._found(effect.key)

    async def _found(self, key: AttemptKey) -> list[Effect]:
        directory = self._directories.open(key)
        if directory is None:
            return self._table.on_not_accepted(key, "its run directory is gone")
        return self._table.on_found(await asyncio.to_thread(held_attempt, directory))

    async def _start(self, key: AttemptKey) -> list[Effect]:
        try:
            await self._drivers.of(key).start(key)
            failpoint("agent.after_start")
        except DriverError as error:
            outcome = Outcome(OutcomeKind.START_FAILED, str(error))
            return self._table.on_change(key, Finished(outcome))
        return []

    async def _stop(self, effect: StopWorker) -> None:
        while True:
            try:
                failpoint("agent.before_stop")
                await self._drivers.of(effect.key).stop(effect.key, effect.grace, effect.reason)
                failpoint("agent.after_stop")
            except RunDirectoryError as error:
                log.error("cannot_stop_yet", attempt=str(effect.key), error=str(error))
                await asyncio.sleep(RETRY_STOP.pause(1))
            except DriverError as error:
                log.error("cannot_stop", attempt=str(effect.key), error=str(error))
                return
            else:
                return

    async def _forget(self, key: AttemptKey) -> None:
        directory = self._directories.open(key)
        if directory is None:
            return
        try:
            failpoint("agent.before_forget")
            await self._secrets.acknowledge(directory)
            failpoint("agent.after_forget")
        except RunDirectoryError as error:
            # It is reported again after the next start, and acknowledged again.
            log.warning("cannot_mark_acknowledged", attempt=str(key), error=str(error))
