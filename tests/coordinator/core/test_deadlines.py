"""The passing of time in the core: silence is not death, and every phase has its deadline."""

import pytest
from coordinator.fleet_building import (
    NODE,
    RUN,
    FleetTrial,
    finished,
    make_hello,
    make_launch,
    running,
    starting,
)

from runyard.coordinator.core.events.on_tick import Retention, on_tick
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.core.model import Instant, Ready, Suspect, Unreachable
from runyard.v1 import run_pb2

TIMED_OUT = run_pb2.OUTCOME_KIND_TIMED_OUT
RECOVERED = 100.0
"""Seconds after which a coordinator of these tests has recovered."""
DAY = 86_400.0
"""Seconds; 24 times as long as the longest absence that the core knows of."""


@pytest.fixture
def trial() -> FleetTrial:
    """A fleet with one node, long after the coordinator's start."""
    made = FleetTrial()
    made.tick(after=RECOVERED)
    made.join(make_hello(slots=1))
    made.asked.clear()
    return made


# Silence


def test_silent_node_becomes_unreachable_when_its_lease_has_run_out_and_its_session_is_closed(
    trial: FleetTrial,
) -> None:
    trial.tick(after=14.9)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Ready)
    trial.tick(after=0.1)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Unreachable)
    assert trial.asked.ended_sessions() == [(NODE, 1)]
    trial.asked.assert_nothing_else()


@pytest.mark.parametrize("news", ["heartbeat", "report"])
def test_any_news_renews_the_lease(trial: FleetTrial, news: str) -> None:
    trial.launch()
    trial.tick(after=10.0)
    if news == "heartbeat":
        trial.beat(1)
    else:
        trial.report(1, running())
    trial.tick(after=14.0)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Ready)


def test_broken_session_does_not_prolong_the_lease(trial: FleetTrial) -> None:
    trial.tick(after=10.0)
    trial.leave(1)
    trial.tick(after=4.9)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Suspect)
    trial.tick(after=0.1)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Unreachable)
    trial.asked.assert_nothing_else()


@pytest.mark.parametrize("reached", ["assigned", "starting", "running", "stopping"])
def test_silence_however_long_never_ends_a_run(trial: FleetTrial, reached: str) -> None:
    trial.launch()
    match reached:
        case "starting":
            trial.report(1, starting())
        case "running":
            trial.report(1, running())
        case "stopping":
            trial.terminate()
    trial.tick(after=DAY)
    assert trial.phase() == reached


def test_slot_of_a_silent_node_stays_taken(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running())
    trial.tick(after=1_000.0)
    assert trial.fleet.slots_used(NODE) == 1


def test_node_that_comes_back_after_its_lease_is_ready_with_its_runs(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running())
    trial.tick(after=1_000.0)
    trial.join(make_hello(attempts=[running()]))
    assert (trial.phase(), trial.fleet.unreachable(trial.run())) == ("running", False)


def test_message_that_comes_after_the_lease_does_not_revive_the_session(trial: FleetTrial) -> None:
    trial.tick(after=15.0)
    trial.asked.clear()
    trial.beat(1)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Unreachable)
    trial.asked.assert_nothing_else()


def test_after_a_restart_nodes_have_the_recovery_time_to_come_back(trial: FleetTrial) -> None:
    trial.tick(after=5_000.0)
    trial.restart()
    trial.tick(after=59.9)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Suspect)
    assert trial.fleet.recovering(trial.now)
    trial.tick(after=0.1)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Unreachable)
    assert not trial.fleet.recovering(trial.now)


def test_wall_clock_that_jumps_changes_no_deadline(trial: FleetTrial) -> None:
    trial.launch(make_launch(start_timeout=100.0))
    for wall in (0.0, 4e9):
        trial.step(lambda fleet, at, wall=wall: on_tick(fleet, Instant(at.monotonic, wall)))  # type: ignore[misc]
    assert trial.phase() == "assigned"
    assert isinstance(trial.fleet.nodes[NODE].liveness, Ready)


# Lateness


@pytest.fixture
def patient() -> FleetTrial:
    """A fleet with one node whose silence means nothing for an hour."""
    made = FleetTrial(LeaseSettings(shortest_lease=3_600.0))
    made.join(make_hello(slots=1))
    return made


def test_run_that_no_node_could_take_in_time_has_timed_out(trial: FleetTrial) -> None:
    trial.launch(make_launch("first"))
    trial.launch(make_launch(max_queue_time=60.0))
    trial.tick(after=59.0)
    assert trial.phase() == "queued"
    trial.tick(after=1.0)
    assert trial.outcome().kind == TIMED_OUT
    assert trial.outcome().message == (
        "no node could take the run within 60 s (max_queue_time); it was waiting: 0/1 nodes available: "
        "1 unreachable"
    )


def test_refusal_does_not_start_the_queue_time_anew() -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=1))
    trial.join(make_hello("node-b", slots=1))
    trial.leave(2, "node-b")
    trial.launch(make_launch("run-before"))
    trial.launch(make_launch(max_queue_time=60.0))
    trial.tick(after=50.0)
    trial.report(1, finished("run-before"))
    assert trial.phase() == "assigned"
    trial.tick(after=30.0)  # with a node: no waiting
    session = trial.join(make_hello(slots=1))
    trial.reject(session)
    assert trial.phase() == "queued"
    trial.tick(after=9.0)
    assert trial.phase() == "queued"
    trial.tick(after=1.0)
    assert trial.outcome().kind == TIMED_OUT


@pytest.mark.parametrize("reached", ["assigned", "starting"])
def test_worker_that_does_not_come_up_in_time_is_stopped_and_has_timed_out(
    patient: FleetTrial, reached: str
) -> None:
    patient.launch(make_launch(start_timeout=60.0))
    if reached == "starting":
        patient.report(1, starting())
    patient.asked.clear()
    patient.tick(after=59.0)
    patient.asked.assert_nothing_else()
    patient.tick(after=1.0)
    assert patient.phase() == "stopping"
    assert patient.asked.sent() == ["stop"]
    patient.report(1, finished(kind=run_pb2.OUTCOME_KIND_STOPPED, message="killed"))
    assert patient.outcome().kind == TIMED_OUT
    assert patient.outcome().message == "the worker did not start within 60 s (start_timeout)"


def test_start_is_timed_from_the_assignment_not_from_the_last_news(trial: FleetTrial) -> None:
    trial.launch(make_launch(start_timeout=60.0))
    trial.tick(after=10.0)
    trial.report(1, starting())
    trial.tick(after=49.0)
    assert trial.phase() == "starting"
    trial.tick(after=1.0)
    assert trial.phase() == "stopping"


def test_time_in_the_queue_does_not_count_as_time_to_start() -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=1))
    trial.launch(make_launch("first"))
    trial.launch(make_launch(start_timeout=60.0))
    for _ in range(10):
        trial.tick(after=10.0)
        trial.beat(1)
    trial.report(1, finished("first"))
    trial.tick(after=1.0)
    assert trial.phase() == "assigned"


def test_worker_that_runs_is_never_late(trial: FleetTrial) -> None:
    trial.launch(make_launch(max_queue_time=1.0, start_timeout=1.0))
    trial.report(1, running())
    trial.tick(after=1e4)
    assert trial.phase() == "running"


def test_run_without_limits_waits_for_ever(trial: FleetTrial) -> None:
    trial.launch(make_launch("first"))
    trial.launch()
    trial.tick(after=1e4)
    assert (trial.phase("first"), trial.phase()) == ("assigned", "queued")


def test_stopped_run_is_not_stopped_again_for_being_late(trial: FleetTrial) -> None:
    trial.launch(make_launch(start_timeout=60.0))
    trial.terminate(reason="a user stopped it")
    trial.asked.clear()
    trial.tick(after=100.0)
    assert trial.asked.sent() == []
    trial.join(make_hello())
    trial.report(2, finished(kind=run_pb2.OUTCOME_KIND_STOPPED))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_STOPPED


def test_deadlines_begin_anew_with_the_coordinator(trial: FleetTrial) -> None:
    trial.launch(make_launch(start_timeout=60.0))
    trial.freeze(1_000.0)
    trial.restart()
    trial.tick(after=59.0)
    assert trial.phase() == "assigned"
    trial.tick(after=1.0)
    assert trial.phase() == "stopping"


# Forgetting


def end_runs(trial: FleetTrial, *run_ids: str) -> None:
    for run_id in run_ids:
        trial.launch(make_launch(run_id))
        trial.report(1, finished(run_id))
        trial.tick(after=1.0)


def test_settled_run_is_forgotten_by_age(trial: FleetTrial) -> None:
    end_runs(trial, RUN)
    trial.settle((RUN, 0))
    trial.forget_old(Retention(seconds=100.0), after=98.0)
    assert RUN in trial.fleet.runs
    trial.forget_old(Retention(seconds=100.0), after=2.0)
    assert trial.asked.dropped() == [RUN]
    assert trial.fleet.runs == {}


def test_run_whose_outcome_nobody_has_settled_is_kept_longer(trial: FleetTrial) -> None:
    end_runs(trial, RUN)
    retention = Retention(seconds=100.0, unsettled_seconds=1_000.0, count=0)
    trial.forget_old(retention, after=900.0)
    assert RUN in trial.fleet.runs
    trial.forget_old(retention, after=200.0)
    assert trial.fleet.runs == {}


def test_oldest_settled_runs_go_first_when_there_are_too_many(trial: FleetTrial) -> None:
    end_runs(trial, "oldest", "unsettled", "newest")
    trial.settle(("oldest", 0), ("newest", 0))
    trial.forget_old(Retention(count=2))
    assert sorted(trial.fleet.runs) == ["newest", "unsettled"]


def test_live_run_is_never_forgotten(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running())
    trial.launch(make_launch("waiting"))
    trial.forget_old(Retention(seconds=0.0, unsettled_seconds=0.0, count=0), after=1e9)
    assert sorted(trial.fleet.runs) == [RUN, "waiting"]


def test_forgotten_run_may_be_launched_again(trial: FleetTrial) -> None:
    end_runs(trial, RUN)
    trial.forget_old(Retention(unsettled_seconds=0.0), after=1.0)
    assert trial.launch(make_launch(content="another")).attempt == 0


def test_tombstone_is_forgotten_by_age(trial: FleetTrial) -> None:
    trial.terminate()
    trial.forget_old(Retention(tombstone_seconds=3_600.0), after=3_600.0)
    assert RUN in trial.fleet.tombstones
    trial.forget_old(Retention(tombstone_seconds=3_600.0), after=1.0)
    trial.launch()
    assert trial.phase() == "assigned"


# The rhythm


@pytest.mark.parametrize(
    ("nodes", "interval", "lease"),
    [(1, 5.0, 15.0), (500, 5.0, 15.0), (1_000, 10.0, 30.0), (2_000, 20.0, 60.0)],
)
def test_large_fleets_beat_slower(nodes: int, interval: float, lease: float) -> None:
    config = LeaseSettings()
    assert (config.interval(nodes), config.lease(nodes)) == (interval, lease)


@pytest.mark.parametrize("nodes", [0, 1, 100, 10_000])
def test_lease_covers_three_heartbeats_whatever_is_configured(nodes: int) -> None:
    config = LeaseSettings(shortest_interval=10.0, shortest_lease=1.0)
    assert config.lease(nodes) >= 3 * config.interval(nodes)


def test_lease_is_never_shorter_than_the_recovery_while_the_coordinator_recovers() -> None:
    trial = FleetTrial(LeaseSettings(shortest_lease=15.0, recovery=60.0))
    assert trial.fleet.lease(trial.now) == 60.0
    trial.tick(after=60.0)
    assert trial.fleet.lease(trial.now) == 15.0
