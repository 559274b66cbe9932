"""TerminateRun in the core: wherever the run is, and as often as somebody asks."""

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
    stopping,
)

from runyard.coordinator.core.model import Stopping
from runyard.v1 import run_pb2


@pytest.fixture
def trial() -> FleetTrial:
    """A fleet with one node of one slot."""
    made = FleetTrial()
    made.join(make_hello(slots=1))
    made.asked.clear()
    return made


def test_waiting_run_is_over_at_once(trial: FleetTrial) -> None:
    trial.launch(make_launch("first"))
    trial.launch()
    trial.asked.clear()
    assert trial.terminate(reason="not needed") is True
    assert (trial.outcome().kind, trial.outcome().message) == (run_pb2.OUTCOME_KIND_STOPPED, "not needed")
    assert trial.asked.order() == [f"save {RUN} finished"]


@pytest.mark.parametrize("reached", ["assigned", "starting", "running"])
def test_placed_run_is_stopped_through_its_agent(trial: FleetTrial, reached: str) -> None:
    trial.launch(make_launch(grace=7.5))
    if reached != "assigned":
        trial.report(1, starting() if reached == "starting" else running(pid=41))
    trial.asked.clear()
    assert trial.terminate(reason="not needed") is True
    assert isinstance(trial.run().phase, Stopping)
    assert len(trial.asked.saved()) == 1
    ((name, message),) = trial.asked.messages()
    assert name == "stop"
    assert (message.stop.run_id, message.stop.attempt, message.stop.reason) == (RUN, 0, "not needed")
    assert message.stop.grace.ToSeconds() == 7
    assert message.stop.grace.ToMilliseconds() == 7_500
    trial.asked.assert_nothing_else()


def test_pid_of_the_worker_is_kept_while_it_is_stopped(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running(pid=41))
    trial.terminate()
    assert getattr(trial.run().phase, "pid", None) == 41


def test_second_stop_changes_nothing_and_says_that_the_first_is_under_way(trial: FleetTrial) -> None:
    trial.launch()
    trial.terminate(reason="first")
    trial.asked.clear()
    assert trial.terminate(reason="second") is True
    trial.asked.assert_nothing_else()
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_STOPPED))
    assert trial.outcome().message == "first"


def test_stop_after_the_end_changes_nothing(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, finished())
    trial.asked.clear()
    assert trial.terminate() is False
    trial.asked.assert_nothing_else()


def test_stop_of_an_unknown_run_leaves_one_tombstone_with_the_first_reason(trial: FleetTrial) -> None:
    assert trial.terminate(reason="first") is False
    assert trial.asked.buried().reason == "first"
    assert trial.terminate(reason="second") is False
    trial.asked.assert_nothing_else()
    assert trial.fleet.tombstones[RUN].reason == "first"


def test_worker_that_finished_its_work_before_the_stop_arrived_has_succeeded(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running())
    trial.terminate()
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_SUCCEEDED))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_SUCCEEDED


def test_stop_while_the_node_is_silent_is_kept_and_sent_when_it_is_back(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running())
    trial.leave(1)
    trial.asked.clear()
    assert trial.terminate() is True
    assert trial.asked.sent() == []
    trial.restart()
    trial.join(make_hello(slots=1, attempts=[running()]))
    assert "stop" in trial.asked.sent()


def test_stop_of_an_attempt_that_its_agent_stops_by_itself_is_on_record(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running())
    trial.report(1, stopping(pid=41))
    trial.asked.clear()
    assert trial.terminate(reason="a user stopped it") is True
    assert len(trial.asked.saved()) == 1
    assert trial.asked.sent() == ["stop"]
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_STOPPED, message="stopped"))
    assert trial.outcome().message == "a user stopped it"


def test_stopped_run_frees_its_slot_only_when_its_worker_is_over(trial: FleetTrial) -> None:
    trial.launch(make_launch("first"))
    trial.launch()
    trial.terminate("first")
    assert trial.phase() == "queued"
    trial.report(1, finished("first", kind=run_pb2.OUTCOME_KIND_STOPPED))
    assert trial.node_of() == NODE
