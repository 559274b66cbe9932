"""Breaks the cores on purpose: a simulation that does not notice would prove nothing."""

from collections.abc import Callable

import pytest
from simulation import coordinator as simulated_coordinator
from simulation import node as simulated_node
from simulation.world import World

from runyard.agent.core import reconcile
from runyard.agent.core.effects import Accept, Effect, Reject, Report
from runyard.agent.core.model import (
    UNKNOWN_LAUNCH,
    AttemptKey,
    Finished,
    HeldAttempt,
    Outcome,
    OutcomeKind,
)
from runyard.coordinator.core import leases, transitions
from runyard.coordinator.core.agent_reports import AttemptStatus
from runyard.coordinator.core.events import on_attempt_status, on_session, on_tick
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Assigned, Instant, Node, Queued, Run, Running, Tombstone
from runyard.coordinator.core.requirements.requirements import TimeLimits
from runyard.v1 import run_pb2

SEEDS = 1_000

NOTICED_AT = {
    "drop_the_tombstone": 811,
    "conclude_before_the_node_has_stopped": 67,
    "accept_what_the_disk_has": 40,
    "answer_before_persisting": 28,
    "take_silence_for_death": 27,
    "forget_rejections": 21,
}
"""Seeds to try first, where it takes many to notice; any change of the simulation may move them."""

Patch = pytest.MonkeyPatch


def drop_the_attempt_check(patch: Patch) -> None:
    """Reports count for the run, whatever attempt they are of."""

    def apply_status(fleet: Fleet, now: Instant, node: Node, status: AttemptStatus) -> None:
        run = fleet.runs.get(status.run_id)
        if run is None:
            on_attempt_status._adopt(fleet, now, node, status)
        elif run.place is not None:
            on_attempt_status._apply(fleet, now, run, run.place, status)

    patch.setattr(on_session, "apply_status", apply_status)


def drop_the_tombstone(patch: Patch) -> None:
    """A stop for an attempt that never came is confirmed, and leaves nothing behind."""
    stop = reconcile.AttemptTable.on_stop

    def on_stop(table: reconcile.AttemptTable, key: AttemptKey, grace: float, reason: str) -> list[Effect]:
        if table.get(key) is not None:
            return stop(table, key, grace, reason)
        over = Finished(Outcome(OutcomeKind.STOPPED, reason))
        return [Report(HeldAttempt(key, UNKNOWN_LAUNCH, over))]

    patch.setattr(reconcile.AttemptTable, "on_stop", on_stop)


def forget_stops_before_the_launch(patch: Patch) -> None:
    """A stop for a run that was never launched is answered, and leaves nothing behind."""

    def bury(fleet: Fleet, run_id: str, tombstone: Tombstone) -> None:
        pass

    patch.setattr(Fleet, "bury", bury)


def answer_before_persisting(patch: Patch) -> None:
    """A launch is acknowledged as soon as it is decided."""
    write = simulated_coordinator.SimulatedCoordinator._write

    def hasty_write(coordinator: simulated_coordinator.SimulatedCoordinator, life: int) -> None:
        if life == coordinator._life:
            for _, answer in coordinator._batches:
                answer()
        write(coordinator, life)

    patch.setattr(simulated_coordinator.SimulatedCoordinator, "_write", hasty_write)


def take_silence_for_death(patch: Patch) -> None:
    """An unconfirmed assignment goes elsewhere when the connection breaks."""

    def on_disconnect(fleet: Fleet, node_id: str, session: int) -> None:
        node = on_session._in_session(fleet, node_id, session)
        if node is None:
            return
        fleet.put_node(leases.suspect(node))
        for run in fleet.live_on(node_id):
            if isinstance(run.phase, Assigned):
                fleet.move(run, Queued(), Instant(node.liveness.last_heard, 0.0), "silent, so dead")

    patch.setattr(simulated_coordinator, "on_disconnect", on_disconnect)


def conclude_before_the_node_has_stopped(patch: Patch) -> None:
    """The coordinator presumes a run gone when the node has only begun to stop it."""

    def gone_after(policies: TimeLimits) -> float | None:
        return policies.stop_after

    patch.setattr(on_tick, "gone_after", gone_after)


def forget_rejections(patch: Patch) -> None:
    """A repeated assignment is taken although it was refused, and given to another node meanwhile."""

    def reject(
        table: reconcile.AttemptTable, key: AttemptKey, message: str, reason_code: str = ""
    ) -> list[Effect]:
        return [Reject(key, message, reason_code)]

    patch.setattr(reconcile.AttemptTable, "_reject", reject)


def accept_what_the_disk_has(patch: Patch) -> None:
    """An attempt whose directory is there is taken as new."""
    do = simulated_node.SimulatedAgent._do

    def careless(agent: simulated_node.SimulatedAgent, effect: Effect) -> list[Effect]:
        if isinstance(effect, Accept):
            agent.machine.directories.pop(effect.assignment.key, None)
        return do(agent, effect)

    patch.setattr(simulated_node.SimulatedAgent, "_do", careless)


def place_elsewhere_what_has_begun(patch: Patch) -> None:
    """A worker that began and failed is started anew on another node, which is for Dagster to ask for."""

    def never_began(run: Run, outcome: run_pb2.Outcome) -> bool:
        return outcome.kind == run_pb2.OUTCOME_KIND_FAILED and run.stop is None

    patch.setattr(on_attempt_status, "never_began", never_began)
    patch.setitem(transitions.ALLOWED, Running, transitions.ALLOWED[Running] | {Queued})


@pytest.mark.parametrize(
    "mutate",
    [
        drop_the_attempt_check,
        drop_the_tombstone,
        forget_stops_before_the_launch,
        answer_before_persisting,
        take_silence_for_death,
        conclude_before_the_node_has_stopped,
        forget_rejections,
        accept_what_the_disk_has,
        place_elsewhere_what_has_begun,
    ],
    ids=lambda mutate: mutate.__name__,
)
def test_the_simulation_notices_when_the_core_would(
    mutate: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    mutate(monkeypatch)
    hint = NOTICED_AT.get(mutate.__name__, 0)
    for seed in (hint, *range(SEEDS)):
        try:
            World(seed).play()
        except Exception as error:
            print(f"{mutate.__name__}: noticed at seed {seed}: {error}")
            return
    pytest.fail(f"{mutate.__name__} went unnoticed in {SEEDS} seeds")
