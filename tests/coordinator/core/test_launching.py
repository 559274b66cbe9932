"""LaunchRun in the core: once and only once, in order, or refused with a reason."""

import pytest
from coordinator.fleet_building import (
    NODE,
    RUN,
    FleetTrial,
    as_assigned,
    finished,
    make_hello,
    make_launch,
    running,
)

from runyard.coordinator.core.errors import LaunchConflict, LaunchRefused
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.model import Queued
from runyard.coordinator.core.requirements.labels import label_is
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.v1 import run_pb2


@pytest.fixture
def trial() -> FleetTrial:
    """A fleet with one node of two slots."""
    made = FleetTrial()
    made.join()
    made.asked.clear()
    return made


def test_launch_is_saved_placed_and_sent_in_one_step(trial: FleetTrial) -> None:
    run = trial.launch()
    assert (run.attempt, trial.phase(), trial.node_of()) == (0, "assigned", NODE)
    assert trial.asked.order() == [
        f"save {RUN} queued",
        f"save {RUN} assigned",
        f"send {NODE} assign",
    ]


def test_assignment_carries_the_attempt_and_the_whole_launch(trial: FleetTrial) -> None:
    trial.launch()
    ((_, message),) = trial.asked.messages()
    assert (message.assign.run_id, message.assign.attempt) == (RUN, 0)
    assert message.assign.spec == as_assigned(make_launch().spec)


def test_repeated_launch_gives_the_run_as_it_is_and_changes_nothing(trial: FleetTrial) -> None:
    first = trial.launch()
    trial.asked.clear()
    assert trial.launch() == first
    trial.asked.assert_nothing_else()


def test_launch_repeated_after_the_end_gives_the_finished_run(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, finished())
    trial.asked.clear()
    assert trial.launch() == trial.run()
    trial.asked.assert_nothing_else()


def test_launch_repeated_after_a_restart_gives_the_same_attempt(trial: FleetTrial) -> None:
    attempt = trial.launch().attempt
    trial.restart()
    assert trial.launch().attempt == attempt


def test_same_run_with_another_content_is_a_conflict_that_names_both_digests(trial: FleetTrial) -> None:
    trial.launch()
    with pytest.raises(LaunchConflict, match=r"run-1 \(resume 0\).*digest.*now.*cannot be changed"):
        trial.launch(make_launch(content="changed"))


def test_conflict_is_noticed_after_the_end_too(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, finished())
    with pytest.raises(LaunchConflict):
        trial.launch(make_launch(content="changed"))


@pytest.mark.parametrize("where", ["in the queue", f"on node {NODE}"])
def test_resume_while_an_attempt_is_live_is_refused_and_says_where_it_is(where: str) -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=1))
    if where == "in the queue":
        trial.launch(make_launch("another"))
    trial.launch()
    with pytest.raises(LaunchRefused, match=f"attempt 0 of run {RUN} is still live {where}; stop it first"):
        trial.launch(make_launch(resume_number=1))


def test_resume_while_the_node_is_silent_is_refused(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running())
    trial.leave(1)
    trial.tick(after=1_000.0)
    with pytest.raises(LaunchRefused, match="still live"):
        trial.launch(make_launch(resume_number=1))


def test_resume_after_the_end_is_a_new_attempt(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_FAILED))
    run = trial.launch(make_launch(resume_number=1))
    assert (run.attempt, run.launch.resume_number, trial.phase()) == (1, 1, "assigned")


def test_late_launch_with_an_older_number_is_superseded(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_FAILED))
    trial.launch(make_launch(resume_number=2))
    trial.report(1, finished(attempt=1, kind=run_pb2.OUTCOME_KIND_FAILED))
    with pytest.raises(LaunchRefused, match="already at resume 2; resume 1 is superseded"):
        trial.launch(make_launch(resume_number=1))


def test_resume_settles_nothing_by_itself_its_own_outcome_is_reported(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_FAILED))
    trial.settle((RUN, 0))
    assert trial.unsettled() == []
    trial.launch(make_launch(resume_number=1))
    trial.report(1, finished(attempt=1))
    assert trial.unsettled() == [RUN]


def test_stop_that_came_first_wins_over_the_launch(trial: FleetTrial) -> None:
    assert trial.terminate(reason="changed my mind") is False
    assert trial.asked.buried().reason == "changed my mind"
    run = trial.launch()
    assert trial.asked.order() == [f"save {RUN} queued", f"save {RUN} finished"]
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_STOPPED
    assert trial.outcome().message == "stopped before launch: changed my mind"
    assert run.place is None


def test_stop_that_came_first_wins_after_a_restart_too(trial: FleetTrial) -> None:
    trial.terminate()
    trial.restart()
    trial.launch()
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_STOPPED


def test_stop_that_came_first_wins_though_no_node_fits(trial: FleetTrial) -> None:
    trial.terminate()
    trial.launch(make_launch(requirements=CompiledRequirements(cluster="nowhere")))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_STOPPED


def test_launch_waits_when_all_slots_are_taken_and_says_why(trial: FleetTrial) -> None:
    for run_id in ("a", "b", RUN):
        trial.launch(make_launch(run_id))
    assert trial.phase() == "queued"
    assert situation(trial.fleet, trial.run()) == "waiting: 0/1 nodes available: 1 without a free slot"


@pytest.mark.parametrize("freed_by", ["an end", "a rejection", "another node", "more slots"])
def test_waiting_run_is_placed_by_the_event_that_makes_room(freed_by: str) -> None:
    trial = FleetTrial()
    session = trial.join(make_hello(slots=1))
    trial.launch(make_launch("first"))
    trial.launch()
    assert trial.phase() == "queued"
    match freed_by:
        case "an end":
            trial.report(session, finished("first"))
        case "a rejection":
            trial.reject(session, "first")
        case "another node":
            trial.join(make_hello("node-b"))
        case _:
            trial.join(make_hello(slots=2))
    assert trial.phase() == "assigned"


def test_stop_of_a_run_that_was_never_placed_frees_nothing_but_its_place_in_the_queue() -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=1))
    for run_id in ("first", "second", "third"):
        trial.launch(make_launch(run_id))
    trial.terminate("second")
    trial.report(1, finished("first"))
    assert (trial.phase("second"), trial.phase("third")) == ("finished", "assigned")


def test_queue_is_served_in_the_order_of_launch_over_a_restart() -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=0))
    trial.join(make_hello("node-b", slots=1))
    for run_id in ("c", "a", "b"):
        trial.clock += 1.0
        trial.launch(make_launch(run_id))
    trial.restart()
    assert [run.run_id for run in trial.fleet.waiting()] == ["a", "b"]
    trial.join(make_hello("node-b", slots=1, attempts=[finished("c")]))
    assert (trial.phase("a"), trial.phase("b")) == ("assigned", "queued")


def test_run_that_fits_nowhere_just_now_lets_others_pass() -> None:
    trial = FleetTrial()
    trial.join(make_hello("small", slots=1, labels={"size": "small"}))
    trial.join(make_hello("large", slots=1, labels={"size": "large"}))
    large = CompiledRequirements(labels=(label_is("size", "large"),))
    trial.launch(make_launch("first", requirements=large))
    trial.launch(make_launch("second", requirements=large))
    trial.launch(make_launch("third"))
    assert (trial.phase("second"), trial.node_of("third")) == ("queued", "small")


def test_nothing_is_placed_on_a_node_that_has_not_come_back_after_a_restart(trial: FleetTrial) -> None:
    trial.restart()
    trial.launch()
    assert trial.phase() == "queued"
    assert situation(trial.fleet, trial.run()) == "waiting: 0/1 nodes available: 1 suspect"
    trial.join()
    assert trial.phase() == "assigned"


def test_launch_for_a_node_that_fell_silent_waits_rather_than_fails(trial: FleetTrial) -> None:
    trial.leave(1)
    trial.launch()
    assert isinstance(trial.run().phase, Queued)


def test_refused_launch_leaves_no_trace(trial: FleetTrial) -> None:
    with pytest.raises(LaunchRefused):
        trial.launch(make_launch(requirements=CompiledRequirements(node="nobody")))
    assert trial.fleet.runs == {}
    trial.asked.assert_nothing_else()


def test_launch_before_any_node_joined_is_refused_with_the_remedy() -> None:
    with pytest.raises(LaunchRefused, match="no node has joined this coordinator yet; start an agent first"):
        FleetTrial().launch()
