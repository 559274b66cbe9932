"""How the agent answers commands and workers: by what the disk says, however often and late it is asked."""

from collections.abc import Callable

import pytest

from runyard.agent.core import reconcile
from runyard.agent.core.effects import Accept, Bury, Effect, Forget, Reject, Report, Start, StopWorker
from runyard.agent.core.model import (
    UNKNOWN_LAUNCH,
    Accepted,
    Assignment,
    AttemptKey,
    AttemptPhase,
    Finished,
    HeldAttempt,
    LaunchIdentity,
    Outcome,
    OutcomeKind,
    Running,
    Starting,
    Stopping,
)
from runyard.agent.core.reconcile import AttemptTable
from runyard.v1 import run_pb2

KEY = AttemptKey("run-1", 1)
EARLIER = AttemptKey("run-1", 0)
LATER = AttemptKey("run-1", 2)
OTHER_RUN = AttemptKey("run-2", 0)
IDENTITY = LaunchIdentity(resume_number=1, deployment="shop", job="orders", location="shop.py")
SPEC = run_pb2.LaunchSpec(run_id="run-1")
SUCCESS = Outcome(OutcomeKind.SUCCEEDED, "exited with code 0", exit_code=0)

LIVE: dict[str, AttemptPhase] = {
    "starting": Starting(),
    "running": Running(41),
    "stopping": Stopping(None),
    "stopping a worker": Stopping(41),
}
HELD = {**LIVE, "finished": Finished(SUCCESS)}


def held(phase: AttemptPhase, key: AttemptKey = KEY) -> HeldAttempt:
    return HeldAttempt(key, IDENTITY, phase)


def holding(phase: AttemptPhase, key: AttemptKey = KEY) -> AttemptTable:
    """Return a table with one attempt in that phase."""
    table = AttemptTable()
    table.on_found(held(phase, key))
    return table


def assignment(key: AttemptKey = KEY) -> Assignment:
    return Assignment(key, IDENTITY, SPEC, start_by=10.0)


def assign(table: AttemptTable, key: AttemptKey = KEY) -> list[Effect]:
    return table.on_assign(assignment(key))


# Assignments


def test_new_assignment_is_written_to_disk_before_it_counts_as_held() -> None:
    table = AttemptTable()
    assert assign(table) == [Accept(assignment(KEY))]
    assert table.all() == []


def test_attempt_that_is_on_disk_is_reported_before_its_worker_starts() -> None:
    table = AttemptTable()
    started = held(Starting())
    assert table.on_accepted(KEY, IDENTITY) == [Report(started), Start(KEY)]
    assert table.all() == [started]


@pytest.mark.parametrize("phase", HELD.values(), ids=HELD)
def test_assignment_of_an_attempt_that_is_held_only_says_how_far_it_is(phase: AttemptPhase) -> None:
    table = holding(phase)
    assert assign(table) == [Report(held(phase))]
    assert table.all() == [held(phase)]


def test_attempt_that_could_not_be_written_is_refused_now_and_ever_after() -> None:
    table = AttemptTable()
    refusal = [Reject(KEY, "no space left on device")]
    assert table.on_not_accepted(KEY, "no space left on device") == refusal
    assert assign(table) == refusal
    assert table.all() == []


@pytest.mark.parametrize("phase", HELD.values(), ids=HELD)
def test_assignment_below_an_attempt_that_is_held_is_refused(phase: AttemptPhase) -> None:
    table = holding(phase, LATER)
    assert assign(table) == [Reject(KEY, "superseded by attempt 2 here")]
    assert table.get(LATER) == held(phase, LATER)


@pytest.mark.parametrize("phase", LIVE.values(), ids=LIVE)
def test_assignment_above_an_attempt_that_is_live_is_refused(phase: AttemptPhase) -> None:
    table = holding(phase, EARLIER)
    assert assign(table) == [Reject(KEY, "attempt 0 of the run is still live here")]


def test_assignment_above_an_attempt_that_is_over_is_taken() -> None:
    assert assign(holding(Finished(SUCCESS), EARLIER)) == [Accept(assignment(KEY))]


@pytest.mark.parametrize("phase", HELD.values(), ids=HELD)
def test_other_runs_do_not_matter(phase: AttemptPhase) -> None:
    assert assign(holding(phase, OTHER_RUN)) == [Accept(assignment(KEY))]


def test_only_so_many_refusals_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "REJECTIONS_KEPT", 2)
    table = AttemptTable()
    keys = [AttemptKey(f"run-{number}", 0) for number in range(3)]
    for key in keys:
        table.on_not_accepted(key, "no room")
    answers = [type(assign(table, key)[0]) for key in keys]
    assert answers == [Accept, Reject, Reject]


# What the disk has


@pytest.mark.parametrize("phase", HELD.values(), ids=HELD)
def test_attempt_that_the_disk_had_already_is_held_and_reported(phase: AttemptPhase) -> None:
    table = AttemptTable()
    assert table.on_found(held(phase)) == [Report(held(phase))]
    assert table.get(KEY) == held(phase)


def test_look_at_the_disk_does_not_overrule_what_is_known_since() -> None:
    table = holding(Running(41))
    assert table.on_found(held(Starting())) == [Report(held(Running(41)))]


@pytest.mark.parametrize("phase", HELD.values(), ids=HELD)
def test_recovered_attempt_is_held_as_it_was_found(phase: AttemptPhase) -> None:
    table = AttemptTable()
    assert table.on_recovered([held(phase)]) == []
    assert table.all() == [held(phase)]


def test_recovered_attempt_that_provably_never_started_waits_until_it_is_assigned_again() -> None:
    table = AttemptTable()
    assert table.on_recovered([held(Accepted()), held(Running(41), OTHER_RUN)]) == []
    assert table.all() == [held(Accepted()), held(Running(41), OTHER_RUN)]
    assert assign(table) == [Report(held(Starting())), Start(KEY)]


def test_attempt_whose_offer_ran_out_while_it_was_written_waits_until_it_is_assigned_again() -> None:
    table = AttemptTable()
    assert table.on_postponed(KEY, IDENTITY) == [Report(held(Accepted()))]
    assert assign(table) == [Report(held(Starting())), Start(KEY)]


# Stops


def test_stop_of_an_attempt_that_never_came_is_buried_so_that_it_never_will() -> None:
    assert AttemptTable().on_stop(KEY, 5.0, "a user stopped it") == [Bury(KEY, "a user stopped it")]


def test_buried_attempt_is_reported_as_over_and_never_assigned_again() -> None:
    table = AttemptTable()
    tombstone = HeldAttempt(KEY, UNKNOWN_LAUNCH, Finished(Outcome(OutcomeKind.STOPPED, "stopped")))
    assert table.on_found(tombstone) == [Report(tombstone)]
    assert assign(table) == [Report(tombstone)]


@pytest.mark.parametrize(
    ("phase", "pid"), [(Starting(), None), (Running(41), 41)], ids=["starting", "running"]
)
def test_stop_of_a_live_attempt_is_given_to_its_driver_and_reported(
    phase: AttemptPhase, pid: int | None
) -> None:
    table = holding(phase)
    assert table.on_stop(KEY, 5.0, "a user stopped it") == [
        StopWorker(KEY, 5.0, "a user stopped it"),
        Report(held(Stopping(pid))),
    ]
    assert table.get(KEY) == held(Stopping(pid))


@pytest.mark.parametrize(
    "phase",
    [Stopping(None), Stopping(41), Finished(SUCCESS)],
    ids=["stopping", "stopping a worker", "finished"],
)
def test_repeated_or_late_stop_only_says_how_far_the_attempt_is(phase: AttemptPhase) -> None:
    table = holding(phase)
    assert table.on_stop(KEY, 5.0, "again") == [Report(held(phase))]
    assert table.get(KEY) == held(phase)


# Acknowledgements


def test_acknowledged_end_is_forgotten() -> None:
    table = holding(Finished(SUCCESS))
    assert table.on_acknowledged(KEY) == [Forget(KEY)]
    assert table.all() == []


@pytest.mark.parametrize("phase", LIVE.values(), ids=LIVE)
def test_acknowledgement_of_a_live_attempt_is_ignored(phase: AttemptPhase) -> None:
    table = holding(phase)
    assert table.on_acknowledged(KEY) == []
    assert table.all() == [held(phase)]


def test_repeated_acknowledgement_is_ignored() -> None:
    assert AttemptTable().on_acknowledged(KEY) == []


# News of workers


@pytest.mark.parametrize(
    ("before", "news"),
    [
        (Starting(), Running(41)),
        (Starting(), Stopping(None)),
        (Starting(), Finished(SUCCESS)),
        (Starting(), Starting("pulling")),
        (Starting("pulling"), Starting("pulled")),
        (Running(41), Stopping(41)),
        (Running(41), Finished(SUCCESS)),
        (Stopping(None), Finished(SUCCESS)),
        (Stopping(41), Finished(SUCCESS)),
    ],
    ids=lambda phase: type(phase).__name__.lower(),
)
def test_news_that_go_forward_are_taken_and_reported(before: AttemptPhase, news: AttemptPhase) -> None:
    table = holding(before)
    assert table.on_change(KEY, news) == [Report(held(news))]
    assert table.get(KEY) == held(news)


@pytest.mark.parametrize(
    ("before", "news"),
    [
        (Starting(), Starting()),
        (Starting("pulling"), Starting("pulling")),
        (Running(41), Starting()),
        (Running(41), Starting("pulling")),
        (Running(41), Running(41)),
        (Stopping(41), Starting()),
        (Stopping(41), Running(41)),
        (Stopping(41), Stopping(None)),
        (Finished(SUCCESS), Starting()),
        (Finished(SUCCESS), Running(41)),
        (Finished(SUCCESS), Stopping(41)),
        (Finished(SUCCESS), Finished(Outcome(OutcomeKind.FAILED, "exited with code 1"))),
    ],
    ids=lambda phase: type(phase).__name__.lower(),
)
def test_old_news_change_nothing(before: AttemptPhase, news: AttemptPhase) -> None:
    table = holding(before)
    assert table.on_change(KEY, news) == []
    assert table.get(KEY) == held(before)


def test_worker_that_came_up_during_its_stop_is_reported_as_being_stopped() -> None:
    table = holding(Stopping(None))
    assert table.on_change(KEY, Running(41)) == [Report(held(Stopping(41)))]


@pytest.mark.parametrize("phase", HELD.values(), ids=HELD)
def test_news_of_an_attempt_that_is_not_held_are_ignored(phase: AttemptPhase) -> None:
    table = AttemptTable()
    assert table.on_change(KEY, phase) == []
    assert table.all() == []


# All together


Event = Callable[[AttemptTable], list[Effect]]

EVENTS: dict[str, Event] = {
    "assign": assign,
    "stop": lambda table: table.on_stop(KEY, 5.0, "stop"),
    "acknowledge": lambda table: table.on_acknowledged(KEY),
}


@pytest.mark.parametrize("phase", HELD.values(), ids=HELD)
@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_no_command_starts_an_attempt_that_is_held(phase: AttemptPhase, event: Event) -> None:
    effects = event(holding(phase))
    assert not [effect for effect in effects if isinstance(effect, Accept | Start)]


@pytest.mark.parametrize("phase", LIVE.values(), ids=LIVE)
@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_no_command_makes_the_agent_forget_a_live_attempt(phase: AttemptPhase, event: Event) -> None:
    table = holding(phase)
    event(table)
    event(table)
    assert table.get(KEY) is not None
