"""News of attempts in the core: skipped, repeated, late, contradictory, or of an attempt nobody knows."""

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
    status,
    stopping,
)

from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.model import Running, Stopping
from runyard.v1 import run_pb2

FAILED = run_pb2.OUTCOME_KIND_FAILED
STOPPED = run_pb2.OUTCOME_KIND_STOPPED
UNKNOWN = run_pb2.OUTCOME_KIND_EXIT_UNKNOWN


@pytest.fixture
def trial() -> FleetTrial:
    """A fleet with one node, to which the run is assigned."""
    made = FleetTrial()
    made.join()
    made.launch()
    made.asked.clear()
    return made


# In order, and with gaps


def test_run_follows_the_reports_of_its_agent(trial: FleetTrial) -> None:
    trial.report(1, starting())
    assert trial.phase() == "starting"
    trial.report(1, running(pid=41))
    assert trial.run().phase == Running(trial.run().place, 41)  # type: ignore[arg-type]
    trial.report(1, finished())
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_SUCCEEDED
    assert trial.asked.order() == [
        f"save {RUN} starting",
        f"save {RUN} running",
        f"save {RUN} finished",
        f"send {NODE} report_ack",
    ]


def test_report_may_skip_the_start(trial: FleetTrial) -> None:
    trial.report(1, running())
    assert trial.phase() == "running"


def test_end_may_come_without_any_news_before_it(trial: FleetTrial) -> None:
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_START_FAILED))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert trial.run().times.running is None


@pytest.mark.parametrize("reached", ["assigned", "starting"])
def test_end_that_names_a_pid_tells_that_the_worker_once_ran(trial: FleetTrial, reached: str) -> None:
    if reached == "starting":
        trial.report(1, starting())
        trial.asked.clear()
    trial.report(1, finished(pid=41))
    assert trial.asked.order() == [
        f"save {RUN} running",
        f"save {RUN} finished",
        f"send {NODE} report_ack",
    ]
    assert trial.run().times.running is not None


def test_progress_of_a_long_start_becomes_an_event_each_time_that_it_is_another(trial: FleetTrial) -> None:
    trial.report(1, starting(progress="1 of 4 MiB"))
    trial.report(1, starting(progress="1 of 4 MiB"))  # as every heartbeat repeats it
    assert situation(trial.fleet, trial.run()) == "1 of 4 MiB"
    trial.report(1, starting(progress="3 of 4 MiB"))
    trial.report(1, starting())
    assert situation(trial.fleet, trial.run()) == "3 of 4 MiB"
    assert trial.asked.history() == ["taken by the agent", "1 of 4 MiB", "3 of 4 MiB"]
    trial.report(1, running())
    trial.report(1, starting(progress="4 of 4 MiB"))  # late
    assert situation(trial.fleet, trial.run()) == ""
    assert trial.fleet.progress == {}


def test_old_news_changes_nothing(trial: FleetTrial) -> None:
    trial.report(1, running())
    trial.asked.clear()
    trial.report(1, starting())
    trial.report(1, running())
    assert trial.phase() == "running"
    trial.asked.assert_nothing_else()


def test_pid_that_becomes_known_during_a_stop_is_saved(trial: FleetTrial) -> None:
    trial.terminate()
    trial.asked.clear()
    trial.report(1, stopping(pid=41))
    assert isinstance(trial.run().phase, Stopping)
    assert getattr(trial.run().phase, "pid", None) == 41
    assert len(trial.asked.saved()) == 1


def test_running_report_that_crossed_a_stop_does_not_undo_it(trial: FleetTrial) -> None:
    trial.terminate()
    trial.report(1, running(pid=41))
    assert trial.phase() == "stopping"


def test_phase_that_this_coordinator_does_not_know_changes_nothing(trial: FleetTrial) -> None:
    trial.report(1, status(run_pb2.PHASE_UNSPECIFIED))
    assert trial.phase() == "assigned"


# Ends


def test_end_is_acknowledged_only_after_it_is_to_be_saved(trial: FleetTrial) -> None:
    trial.report(1, finished())
    assert trial.asked.order() == [f"save {RUN} finished", f"send {NODE} report_ack"]


def test_acknowledgement_names_the_attempt(trial: FleetTrial) -> None:
    trial.report(1, finished())
    ((_, message),) = trial.asked.messages()
    assert (message.report_ack.run_id, message.report_ack.attempt) == (RUN, 0)


def test_repeated_end_is_acknowledged_again_and_saved_once(trial: FleetTrial) -> None:
    trial.report(1, finished())
    trial.asked.clear()
    trial.report(1, finished())
    assert trial.asked.order() == [f"send {NODE} report_ack"]


def test_second_end_that_contradicts_the_first_is_acknowledged_and_ignored(trial: FleetTrial) -> None:
    trial.report(1, finished())
    trial.report(1, finished(kind=FAILED))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_SUCCEEDED


@pytest.mark.parametrize("late", [starting(), running(), stopping()], ids=["starting", "running", "stopping"])
def test_run_that_is_over_is_never_reopened_and_its_worker_is_told_to_stop(
    trial: FleetTrial, late: object
) -> None:
    trial.report(1, finished())
    trial.asked.clear()
    trial.report(1, late)  # type: ignore[arg-type]
    assert trial.phase() == "finished"
    assert trial.asked.order() == [f"send {NODE} stop"]


def test_end_that_nobody_saw_is_corrected_by_the_real_one(trial: FleetTrial) -> None:
    trial.report(1, running())
    trial.join(make_hello())
    assert trial.outcome().kind == UNKNOWN
    trial.asked.clear()
    trial.report(2, finished(kind=FAILED, message="exited with code 1"))
    assert trial.outcome().kind == FAILED
    assert trial.asked.order() == [f"save {RUN} finished", f"send {NODE} report_ack"]


def test_corrected_end_is_told_to_a_reporter_who_has_settled_nothing_yet(trial: FleetTrial) -> None:
    trial.report(1, running())
    trial.join(make_hello())
    trial.report(2, finished(kind=FAILED))
    assert trial.unsettled() == [RUN]


def test_end_that_came_of_a_stop_says_who_asked_for_it(trial: FleetTrial) -> None:
    trial.report(1, running())
    trial.terminate(reason="ann stopped it")
    told = finished(kind=STOPPED, message="stopped (ann stopped it): killed by signal 15")
    told.outcome.stderr_tail = "Traceback"
    trial.report(1, told)
    outcome = trial.outcome()
    assert (outcome.kind, outcome.message, outcome.stderr_tail) == (STOPPED, "ann stopped it", "Traceback")


def test_crash_during_a_stop_is_called_a_crash(trial: FleetTrial) -> None:
    trial.report(1, running())
    trial.terminate()
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_OOM_KILLED))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_OOM_KILLED


def test_end_drops_the_secrets_from_what_is_saved(trial: FleetTrial) -> None:
    trial.report(1, finished())
    spec = trial.disk.runs[RUN].launch.spec
    assert (spec.worker_args, dict(spec.environment)) == ("", {})


# Attempts that are not the run's latest


@pytest.fixture
def moved() -> FleetTrial:
    """A fleet in which node-a refused the run's attempt 0, and node-b has attempt 1."""
    made = FleetTrial()
    made.join()
    made.join(make_hello("node-b"))
    made.launch()
    made.reject(1)
    made.asked.clear()
    assert (made.node_of(), made.run().attempt) == ("node-b", 1)
    return made


def test_agent_that_runs_an_earlier_attempt_is_told_to_stop_it(moved: FleetTrial) -> None:
    moved.report(1, running(attempt=0))
    ((name, message),) = moved.asked.messages()
    assert (name, message.stop.attempt) == ("stop", 0)
    assert "superseded" in message.stop.reason
    assert moved.node_of() == "node-b"


def test_end_of_an_earlier_attempt_is_acknowledged_and_changes_nothing(moved: FleetTrial) -> None:
    before = moved.run()
    moved.report(1, finished(attempt=0))
    assert moved.run() == before
    assert moved.asked.order() == [f"send {NODE} report_ack"]


@pytest.mark.parametrize("told", ["running", "finished"])
def test_node_that_claims_an_attempt_of_another_node_is_not_believed(moved: FleetTrial, told: str) -> None:
    before = moved.run()
    moved.report(1, running(attempt=1) if told == "running" else finished(attempt=1))
    assert moved.run() == before
    assert moved.asked.sent() == ["stop" if told == "running" else "report_ack"]


def test_claim_on_a_run_that_ended_in_the_queue_is_not_believed() -> None:
    trial = FleetTrial()
    trial.terminate()
    trial.join()
    trial.launch()
    trial.asked.clear()
    trial.report(1, running(attempt=0))
    assert trial.asked.order() == [f"send {NODE} stop"]


# Attempts that only the agent remembers


def test_worker_that_the_coordinator_does_not_know_is_adopted_not_killed() -> None:
    trial = FleetTrial()
    trial.join(make_hello(attempts=[running(attempt=3, pid=41)]))
    run = trial.run()
    assert (run.attempt, trial.phase(), trial.node_of()) == (3, "running", NODE)
    assert (run.launch.deployment, run.launch.job, run.launch.location) == ("shop", "orders", "shop.py")
    assert trial.asked.sent() == ["welcome"]


def test_end_that_the_coordinator_does_not_know_is_adopted_and_acknowledged() -> None:
    trial = FleetTrial()
    trial.join()
    trial.asked.clear()
    trial.report(1, finished(kind=FAILED))
    assert trial.asked.order() == [f"save {RUN} finished", f"send {NODE} report_ack"]
    assert trial.unsettled() == [RUN]


@pytest.mark.parametrize(
    ("told", "phase"), [(starting(), "starting"), (stopping(), "stopping")], ids=["starting", "stopping"]
)
def test_adopted_attempt_is_in_the_phase_that_its_agent_tells(told: object, phase: str) -> None:
    trial = FleetTrial()
    trial.join()
    trial.report(1, told)  # type: ignore[arg-type]
    assert trial.phase() == phase


def test_adopted_run_takes_a_slot() -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=1, attempts=[running("stranger")]))
    trial.launch()
    assert trial.phase() == "queued"


def test_launch_that_was_lost_with_the_store_is_recognised_by_its_adopted_run() -> None:
    trial = FleetTrial()
    trial.join(make_hello(attempts=[running()]))
    assert trial.launch().attempt == 0
    assert trial.phase() == "running"


def test_higher_attempt_than_the_stored_one_is_adopted_in_its_place() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.join(make_hello("node-b", attempts=[running(attempt=2)]))
    assert (trial.run().attempt, trial.node_of()) == (2, "node-b")
    trial.asked.clear()
    trial.beat(1, running(attempt=0))
    assert trial.asked.sent() == ["heartbeat_ack", "stop"]


def test_queued_run_is_not_placed_again_when_a_worker_of_it_turns_up() -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=0))
    trial.join(make_hello("node-b"))
    trial.leave(2, "node-b")
    trial.launch()
    assert trial.phase() == "queued"
    trial.join(make_hello("node-b", attempts=[running(attempt=1)]))
    assert (trial.phase(), trial.run().attempt) == ("running", 1)
    assert trial.fleet.waiting() == []


def test_stop_that_came_while_the_run_was_unknown_is_carried_out_when_it_is_adopted() -> None:
    trial = FleetTrial()
    trial.terminate(reason="a user stopped it")
    trial.join(make_hello(attempts=[running()]))
    assert trial.phase() == "stopping"
    assert "stop" in trial.asked.sent()
    trial.report(1, finished(kind=STOPPED))
    assert trial.outcome().message == "a user stopped it"


# What the reporter has settled


def test_outcome_is_told_until_it_is_settled_over_restarts_too(trial: FleetTrial) -> None:
    trial.report(1, finished())
    assert trial.unsettled() == [RUN]
    trial.restart()
    assert trial.unsettled() == [RUN]
    trial.settle((RUN, 0))
    trial.restart()
    assert trial.unsettled() == []


def test_each_deployment_has_its_own_outcomes(trial: FleetTrial) -> None:
    trial.launch(make_launch("other", deployment="factory"))
    trial.report(1, finished())
    trial.report(1, finished("other"))
    assert (trial.unsettled("shop"), trial.unsettled("factory")) == ([RUN], ["other"])


@pytest.mark.parametrize("key", [(RUN, 1), ("nobody", 0)], ids=["another attempt", "a run that nobody knows"])
def test_settling_something_else_settles_nothing(trial: FleetTrial, key: tuple[str, int]) -> None:
    trial.report(1, finished())
    trial.asked.clear()
    trial.settle(key)
    assert trial.unsettled() == [RUN]
    trial.asked.assert_nothing_else()


def test_live_run_cannot_be_settled(trial: FleetTrial) -> None:
    trial.settle((RUN, 0))
    trial.report(1, finished())
    assert trial.unsettled() == [RUN]


def test_settling_twice_saves_once(trial: FleetTrial) -> None:
    trial.report(1, finished())
    trial.asked.clear()
    trial.settle((RUN, 0), (RUN, 0))
    trial.settle((RUN, 0))
    assert trial.asked.order() == [f"save {RUN} finished"]
