"""Assignments that a node refuses: the next node gets them, until nobody is left to ask."""

import pytest
from coordinator.fleet_building import NODE, FleetTrial, make_hello, make_launch, running

from runyard.v1 import run_pb2


def test_refused_run_goes_to_the_next_node_as_a_new_attempt() -> None:
    trial = FleetTrial()
    trial.join()
    trial.join(make_hello("node-b"))
    trial.launch()
    trial.asked.clear()
    trial.reject(1, reason="disk full")
    assert (trial.node_of(), trial.run().attempt, trial.phase()) == ("node-b", 1, "assigned")
    assert trial.asked.sent("node-b") == ["assign"]
    assert trial.asked.sent(NODE) == []


def test_refused_run_waits_for_a_node_that_could_take_it_and_says_who_refused() -> None:
    trial = FleetTrial()
    trial.join()
    trial.join(make_hello("node-b"))
    trial.leave(2, "node-b")
    trial.launch()
    trial.reject(1)
    assert trial.phase() == "queued"
    assert trial.fleet.news(trial.run()) == "waiting: 2 nodes: 1 suspect, 1 that refused it"


def test_run_that_every_node_refused_has_failed_to_start_and_names_all_reasons() -> None:
    trial = FleetTrial()
    trial.join()
    trial.join(make_hello("node-b"))
    trial.join(make_hello("node-c", drivers=["docker"]))
    trial.launch()
    trial.reject(1, reason="disk full")
    trial.reject(2, attempt=1, node_id="node-b", reason="no interpreter")
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert trial.outcome().message == (
        "every node that could take the run refused it (node-a: disk full; node-b: no interpreter)"
    )
    assert trial.run().place is not None


def test_refusals_are_remembered_over_a_restart() -> None:
    trial = FleetTrial()
    trial.join()
    trial.join(make_hello("node-b"))
    trial.leave(2, "node-b")
    trial.launch()
    trial.reject(1)
    trial.restart()
    trial.join()
    assert trial.phase() == "queued"
    trial.join(make_hello("node-b"))
    assert trial.node_of() == "node-b"


def test_resume_is_not_held_back_by_refusals_of_an_earlier_launch() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.reject(1)
    assert trial.phase() == "finished"
    trial.launch(make_launch(resume_number=1))
    assert trial.node_of() == NODE


@pytest.mark.parametrize("attempt", [0, 2], ids=["an earlier attempt", "an attempt that never was"])
def test_rejection_of_another_attempt_changes_nothing(attempt: int) -> None:
    trial = FleetTrial()
    trial.join()
    trial.join(make_hello("node-b"))
    trial.launch()
    trial.reject(1)
    before = trial.run()
    trial.reject(2, attempt=attempt, node_id="node-b")
    assert trial.run() == before


def test_rejection_by_a_node_that_was_not_asked_changes_nothing() -> None:
    trial = FleetTrial()
    trial.join()
    other = trial.join(make_hello("node-b"))
    trial.launch()
    before = trial.run()
    trial.reject(other, node_id="node-b")
    assert trial.run() == before


def test_rejection_after_the_worker_was_seen_changes_nothing() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.report(1, running())
    trial.reject(1)
    assert trial.phase() == "running"


def test_rejection_of_a_run_that_is_being_stopped_carries_out_the_stop() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.terminate(reason="a user stopped it")
    trial.reject(1)
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_STOPPED
    assert trial.outcome().message == "a user stopped it"
