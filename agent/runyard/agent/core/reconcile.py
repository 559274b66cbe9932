"""How the agent answers the coordinator and its own workers.

Every command may come twice, late, or for an attempt that is long over; every answer says what the disk says.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from runyard.agent.core.effects import Accept, Bury, Effect, Forget, Reject, Report, Start, StopWorker
from runyard.agent.core.model import (
    Accepted,
    AttemptKey,
    AttemptPhase,
    Finished,
    HeldAttempt,
    LaunchIdentity,
    Running,
    Starting,
    Stopping,
)
from runyard.v1 import run_pb2

REJECTIONS_KEPT = 10_000
"""How many rejections are remembered; a repeat of an older assignment cannot arrive in the same session."""

_ORDER: tuple[type[AttemptPhase], ...] = (Accepted, Starting, Running, Stopping, Finished)


class Holdings:
    """The attempts that this agent holds: all on its disk whose end the coordinator has not acknowledged."""

    def __init__(self) -> None:
        self._held: dict[AttemptKey, HeldAttempt] = {}
        self._rejected: OrderedDict[AttemptKey, Reject] = OrderedDict()

    def all(self) -> list[HeldAttempt]:
        """The full set, as Hello and heartbeats carry it."""
        return list(self._held.values())

    def get(self, key: AttemptKey) -> HeldAttempt | None:
        """One attempt, or None if it is not held (any more)."""
        return self._held.get(key)

    # From the disk, at start

    def on_recovered(self, found: Iterable[HeldAttempt]) -> list[Effect]:
        """Takes up what the run directories hold.

        What never started waits until it is assigned again: a disk that was restored from an old image may
        hold attempts that have long run.
        """
        self._held.update((attempt.key, attempt) for attempt in found)
        return []

    # From the coordinator

    def on_assign(self, key: AttemptKey, identity: LaunchIdentity, spec: run_pb2.LaunchSpec) -> list[Effect]:
        """Takes an assignment, unless this agent has or had the attempt, or one that excludes it."""
        if held := self._held.get(key):
            return self._start(held) if isinstance(held.phase, Accepted) else [Report(held)]
        if refusal := self._rejected.get(key):
            return [refusal]
        for other in self._held.values():
            if other.key.run_id == key.run_id:
                if other.key.attempt > key.attempt:
                    return self._reject(key, f"superseded by attempt {other.key.attempt} here")
                if not isinstance(other.phase, Finished):
                    return self._reject(key, f"attempt {other.key.attempt} of the run is still live here")
        return [Accept(key, identity, spec)]

    def on_accepted(
        self, key: AttemptKey, identity: LaunchIdentity, devices: tuple[str, ...] = ()
    ) -> list[Effect]:
        """The attempt is on disk, with its devices, and nobody has started it."""
        return self._start(HeldAttempt(key, identity, devices=devices))

    def on_postponed(
        self, key: AttemptKey, identity: LaunchIdentity, devices: tuple[str, ...] = ()
    ) -> list[Effect]:
        """The attempt is on disk, but the offer ran out meanwhile: it waits for the next one."""
        return [Report(self._hold(HeldAttempt(key, identity, devices=devices)))]

    def on_not_accepted(self, key: AttemptKey, reason: str, why: str = "") -> list[Effect]:
        """The attempt could not be written to disk, so it can never start here."""
        return self._reject(key, reason, why)

    def on_found(self, attempt: HeldAttempt) -> list[Effect]:
        """The disk had the attempt already, or has it now as one that must never start."""
        held = self._held.setdefault(attempt.key, attempt)
        return [Report(held)]

    def on_stop(self, key: AttemptKey, grace: float, reason: str) -> list[Effect]:
        """Stops an attempt in whatever phase it is; one that never came is buried, so that it never will."""
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
        """The coordinator has the end of the attempt on its disk."""
        held = self._held.get(key)
        if held is None or not isinstance(held.phase, Finished):
            return []
        del self._held[key]
        return [Forget(key)]

    # From the drivers

    def on_change(self, key: AttemptKey, phase: AttemptPhase) -> list[Effect]:
        """Takes news of a worker. News that is older than what is known changes nothing."""
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

    def _reject(self, key: AttemptKey, reason: str, why: str = "") -> list[Effect]:
        refusal = self._rejected[key] = Reject(key, reason, why)
        while len(self._rejected) > REJECTIONS_KEPT:
            self._rejected.popitem(last=False)
        return [refusal]
