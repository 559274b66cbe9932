"""The life of a run, phase by phase: what may follow what, and what a step leaves behind."""

import itertools

import pytest
from coordinator.fleet_building import RUN, make_launch

from runyard.coordinator.core.model import (
    Assigned,
    Finished,
    Instant,
    Phase,
    Place,
    Queued,
    Run,
    Running,
    Starting,
    Stopping,
    Times,
)
from runyard.coordinator.core.transitions import ForbiddenTransition, advance, correct
from runyard.v1 import run_pb2

PLACE = Place("node-a", "default")
LATER = Instant(monotonic=20.0, wall=2_000.0)


def outcome(kind: run_pb2.OutcomeKind.ValueType = run_pb2.OUTCOME_KIND_SUCCEEDED) -> run_pb2.Outcome:
    return run_pb2.Outcome(kind=kind, message=run_pb2.OutcomeKind.Name(kind))


PHASES: dict[str, Phase] = {
    "queued": Queued(),
    "assigned": Assigned(PLACE),
    "starting": Starting(PLACE),
    "running": Running(PLACE, 41),
    "stopping": Stopping(PLACE, 41),
    "finished": Finished(outcome(), PLACE),
}

MAY_FOLLOW = {
    ("queued", "assigned"): "a node was chosen",
    ("queued", "finished"): "stopped, or late, before any node had it",
    ("assigned", "queued"): "the node refused",
    ("assigned", "starting"): "the node took it",
    ("assigned", "running"): "the news of the start was skipped",
    ("assigned", "stopping"): "stopped while the node may be starting it",
    ("assigned", "finished"): "all news before the end was skipped",
    ("starting", "queued"): "the node proved that the worker never began",
    ("starting", "running"): "the worker came up",
    ("starting", "stopping"): "stopped while it starts",
    ("starting", "finished"): "the worker could not start",
    ("running", "stopping"): "stopped at work",
    ("running", "finished"): "the worker ended by itself",
    ("stopping", "finished"): "the stop was carried out",
}


def in_phase(phase: Phase, attempt: int = 3) -> Run:
    return Run(make_launch(), attempt, phase, Times(launched=1_000.0), queued_since=10.0, since=10.0)


@pytest.mark.parametrize(("before", "after"), MAY_FOLLOW, ids=lambda name: name)
def test_phase_may_follow(before: str, after: str) -> None:
    advanced = advance(in_phase(PHASES[before]), PHASES[after], LATER)
    assert advanced.phase == PHASES[after]


@pytest.mark.parametrize(
    ("before", "after"),
    [pair for pair in itertools.product(PHASES, PHASES) if pair not in MAY_FOLLOW],
    ids=lambda name: name,
)
def test_phase_may_not_follow(before: str, after: str) -> None:
    with pytest.raises(ForbiddenTransition, match=f"{RUN}/3"):
        advance(in_phase(PHASES[before]), PHASES[after], LATER)


def test_return_to_the_queue_begins_a_new_attempt() -> None:
    assert advance(in_phase(Assigned(PLACE)), Queued(), LATER).attempt == 4


@pytest.mark.parametrize("after", ["assigned", "finished"])
def test_attempt_number_stays_on_the_way_out_of_the_queue(after: str) -> None:
    assert advance(in_phase(Queued()), PHASES[after], LATER).attempt == 3


@pytest.mark.parametrize(
    ("before", "after", "stamped"),
    [
        ("queued", "assigned", "assigned"),
        ("starting", "running", "running"),
        ("running", "finished", "finished"),
    ],
)
def test_people_see_when_it_happened_on_the_wall_clock(before: str, after: str, stamped: str) -> None:
    times = advance(in_phase(PHASES[before]), PHASES[after], LATER).times
    assert getattr(times, stamped) == LATER.wall
    assert times.launched == 1_000.0


def test_end_drops_the_secrets_of_the_launch_and_keeps_the_rest() -> None:
    spec = advance(in_phase(Running(PLACE, 41)), PHASES["finished"], LATER).launch.spec
    assert (spec.worker_args, dict(spec.environment)) == ("", {})
    assert b"a secret" not in spec.SerializeToString()
    assert spec.job_snapshot_id == "snapshot-1"


@pytest.mark.parametrize("after", ["assigned", "finished"])
def test_advance_leaves_the_run_it_was_given_alone(after: str) -> None:
    run = in_phase(Queued())
    advance(run, PHASES[after], LATER)
    assert run == in_phase(Queued())


@pytest.mark.parametrize(
    "presumed",
    [run_pb2.OUTCOME_KIND_NODE_LOST, run_pb2.OUTCOME_KIND_EXIT_UNKNOWN],
    ids=run_pb2.OutcomeKind.Name,
)
@pytest.mark.parametrize(
    "real",
    [
        run_pb2.OUTCOME_KIND_SUCCEEDED,
        run_pb2.OUTCOME_KIND_FAILED,
        run_pb2.OUTCOME_KIND_OOM_KILLED,
        run_pb2.OUTCOME_KIND_START_FAILED,
        run_pb2.OUTCOME_KIND_STOPPED,
        run_pb2.OUTCOME_KIND_TIMED_OUT,
    ],
    ids=run_pb2.OutcomeKind.Name,
)
def test_real_result_corrects_a_presumed_one_without_reopening_the_run(
    presumed: run_pb2.OutcomeKind.ValueType, real: run_pb2.OutcomeKind.ValueType
) -> None:
    corrected = correct(in_phase(Finished(outcome(presumed), PLACE)), outcome(real))
    assert corrected is not None
    assert corrected.phase == Finished(outcome(real), PLACE)


@pytest.mark.parametrize(
    ("before", "late"),
    [
        (run_pb2.OUTCOME_KIND_SUCCEEDED, run_pb2.OUTCOME_KIND_FAILED),
        (run_pb2.OUTCOME_KIND_FAILED, run_pb2.OUTCOME_KIND_SUCCEEDED),
        (run_pb2.OUTCOME_KIND_STOPPED, run_pb2.OUTCOME_KIND_EXIT_UNKNOWN),
        (run_pb2.OUTCOME_KIND_NODE_LOST, run_pb2.OUTCOME_KIND_EXIT_UNKNOWN),
        (run_pb2.OUTCOME_KIND_EXIT_UNKNOWN, run_pb2.OUTCOME_KIND_NODE_LOST),
    ],
    ids=run_pb2.OutcomeKind.Name,
)
def test_end_that_somebody_saw_is_never_corrected_and_nothing_is_corrected_by_a_guess(
    before: run_pb2.OutcomeKind.ValueType, late: run_pb2.OutcomeKind.ValueType
) -> None:
    assert correct(in_phase(Finished(outcome(before), PLACE)), outcome(late)) is None


@pytest.mark.parametrize("live", ["queued", "assigned", "starting", "running", "stopping"])
def test_live_run_has_no_outcome_to_correct(live: str) -> None:
    assert correct(in_phase(PHASES[live]), outcome()) is None
