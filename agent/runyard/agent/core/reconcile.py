"""Reconciliation of the attempts on disk with the coordinator's commands and the drivers' updates.

A command may arrive twice, late, or for an attempt that ended long ago. Every answer reports the state on
disk.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from runyard.agent.core.effects import Accept, Bury, Effect, Forget, Reject, Report, Start, StopWorker
from runyard.agent.core.model import (
    Accepted,
    Assignment,
    AttemptKey,
    AttemptPhase,
    Finished,
    HeldAttempt,
    LaunchIdentity,
    Running,
    Starting,
    Stopping,
)

REJECTIONS_KEPT = 10_000
"""Number of rejections that are kept. An older assignment cannot arrive again in the same session."""

_ORDER: tuple[type[AttemptPhase], ...] = (Accepted, Starting, Running, Stopping, Finished)


class AttemptTable:
    """Attempts that this agent holds: those on its disk whose end the coordinator has not acknowledged."""

    def __init__(self) -> None:
        self._held: dict[AttemptKey, HeldAttempt] = {}
        self._rejected: OrderedDict[AttemptKey, Reject] = OrderedDict()

    def all(self) -> list[HeldAttempt]:
        """Return the full set, as Hello and heartbeats carry it."""
        return list(self._held.values())

    def get(self, key: AttemptKey) -> HeldAttempt | None:
        """Return an attempt, or None if it is not held."""
        return self._held.get(key)

    # From the disk, at start

    def on_recovered(self, found: Iterable[HeldAttempt]) -> list[Effect]:
        """Adopt the attempts in the run directories.

        An attempt that never started waits until it is assigned again: a disk that was restored from an old
        image may hold attempts that have run elsewhere since.
        """
        self._held.update((attempt.key, attempt) for attempt in found)
        return []

    # From the coordinator

    def on_assign(self, assignment: Assignment) -> list[Effect]:
        """Accept an assignment unless this agent has or had the attempt, or holds one that excludes it."""
        key = assignment.key
        if held := self._held.get(key):
            return self._start(held) if isinstance(held.phase, Accepted) else [Report(held)]
        if rejection := self._rejected.get(key):
            return [rejection]
        for other in self._held.values():
            if other.key.run_id == key.run_id:
                if other.key.attempt > key.attempt:
                    return self._reject(key, f"superseded by attempt {other.key.attempt} here")
                if not isinstance(other.phase, Finished):
                    return self._reject(key, f"attempt {other.key.attempt} of the run is still live here")
        return [Accept(assignment)]

    def on_accepted(
        self, key: AttemptKey, identity: LaunchIdentity, devices: tuple[str, ...] = ()
    ) -> list[Effect]:
        """Start an attempt that is on disk now, with its devices."""
        return self._start(HeldAttempt(key, identity, devices=devices))

    def on_postponed(
        self, key: AttemptKey, identity: LaunchIdentity, devices: tuple[str, ...] = ()
    ) -> list[Effect]:
        """Hold an attempt that is on disk now, but too late to start: it waits for the next assignment."""
        return [Report(self._hold(HeldAttempt(key, identity, devices=devices)))]

    def on_not_accepted(self, key: AttemptKey, message: str, reason_code: str = "") -> list[Effect]:
        """Reject an attempt that is not on disk, so that it can never start here."""
        return self._reject(key, message, reason_code)

    def on_found(self, attempt: HeldAttempt) -> list[Effect]:
        """Report an attempt that was already on disk, or is there now as one that must never start."""
        held = self._held.setdefault(attempt.key, attempt)
        return [Report(held)]

    def on_stop(self, key: AttemptKey, grace: float, reason: str) -> list[Effect]:
        """Stop an attempt in any phase. One that never arrived is buried, so that it cannot start later."""
        held = self._held.get(key)
        match held:
            case None:
                return [Bury(key, reason)]
            case HeldAttempt(phase=Finished() | Stopping()):
                return [Report(held)]
            case _:
                pid = held.phase.pid if isinstance(held.phase, Running) else None
                held = self._hold(replace(held, phase=Stopping(pid)))
                return [StopWorker(key, grace, reason), Report(held)]

    def on_acknowledged(self, key: AttemptKey) -> list[Effect]:
        """Forget an attempt whose end the coordinator has stored."""
        held = self._held.get(key)
        if held is None or not isinstance(held.phase, Finished):
            return []
        del self._held[key]
        return [Forget(key)]

    # From the drivers

    def on_change(self, key: AttemptKey, phase: AttemptPhase) -> list[Effect]:
        """Apply a driver's update. An update that is older than the known phase changes nothing."""
        held = self._held.get(key)
        if held is None:
            return []
        if isinstance(held.phase, Stopping) and isinstance(phase, Running):
            phase = Stopping(phase.pid)
            if phase == held.phase:
                return []
        elif isinstance(held.phase, Starting) and isinstance(phase, Starting):
            if phase == held.phase:
                return []
        elif _ORDER.index(type(phase)) <= _ORDER.index(type(held.phase)):
            return []
        return [Report(self._hold(replace(held, phase=phase)))]

    def _start(self, attempt: HeldAttempt) -> list[Effect]:
        started = self._hold(replace(attempt, phase=Starting()))
        return [Report(started), Start(attempt.key)]

    def _hold(self, attempt: HeldAttempt) -> HeldAttempt:
        self._held[attempt.key] = attempt
        return attempt

    def _reject(self, key: AttemptKey, message: str, reason_code: str = "") -> list[Effect]:
        rejection = self._rejected[key] = Reject(key, message, reason_code)
        while len(self._rejected) > REJECTIONS_KEPT:
            self._rejected.popitem(last=False)
        return [rejection]
