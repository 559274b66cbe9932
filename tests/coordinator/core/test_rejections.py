"""Nodes that refuse a run or cannot start it: the next one gets it, until there is nobody left to ask."""

import pytest
from coordinator.fleet_building import (
    NODE,
    FleetTrial,
    finished,
    make_hello,
    make_launch,
    running,
    starting,
)

from runyard.coordinator.core.effects import SaveRun
from runyard.coordinator.core.explain.explanation import explain_run
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.scheduling.config import SchedulingConfig
from runyard.v1 import agent_pb2, run_pb2


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
    assert situation(trial.fleet, trial.run()) == "waiting: 0/2 nodes available: 1 refused the run, 1 suspect"


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
        "2 nodes did not start the run (node-a: disk full; node-b: no interpreter), "
        "and no other node could take the run"
    )
    assert trial.run().place is not None


def test_run_that_its_only_node_refused_ends_with_the_cause_of_the_refusal() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.reject(1, reason="no interpreter", cause="executable_missing")
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert trial.outcome().cause == "executable_missing"


def test_an_explanation_names_each_node_that_did_not_start_the_run_once() -> None:
    trial = FleetTrial()
    trial.join()
    trial.join(make_hello("node-b"))
    trial.launch()

    def verdict() -> str:
        return trial.step(lambda fleet, at: explain_run(fleet, at, trial.run())).verdict

    trial.reject(1, reason="disk full")
    assert verdict().endswith("; node node-a did not start it: disk full")
    trial.reject(2, attempt=1, node_id="node-b", reason="no interpreter")
    assert (verdict().count("disk full"), verdict().count("no interpreter")) == (1, 1)


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


# Nodes that took the run, and could not start it


def could_not_start(attempt: int = 0, message: str = "cannot fork") -> agent_pb2.AttemptStatus:
    return finished(attempt=attempt, kind=run_pb2.OUTCOME_KIND_START_FAILED, message=message)


def of_three_nodes() -> FleetTrial:
    trial = FleetTrial()
    for name in "abc":
        trial.join(make_hello(f"node-{name}"))
    trial.launch()
    return trial


def test_run_that_its_node_could_not_start_goes_to_the_next_node_as_a_new_attempt() -> None:
    trial = of_three_nodes()
    trial.report(1, starting())
    trial.asked.clear()
    trial.report(1, could_not_start())
    assert (trial.node_of(), trial.run().attempt, trial.phase()) == ("node-b", 1, "assigned")
    assert trial.asked.sent("node-b") == ["assign"]
    assert trial.asked.sent(NODE) == ["report_ack"]


def test_failure_that_is_told_again_is_acknowledged_and_changes_nothing() -> None:
    trial = of_three_nodes()
    trial.report(1, could_not_start())
    before = trial.run()
    trial.asked.clear()
    trial.beat(1, could_not_start())
    assert trial.run() == before
    assert "report_ack" in trial.asked.sent()


def test_each_failure_is_an_event_of_the_run() -> None:
    trial = of_three_nodes()
    trial.asked.clear()
    trial.report(1, could_not_start())
    events = [effect.event for effect in trial.asked.everything() if isinstance(effect, SaveRun)]
    assert events == ["node node-a could not start it: cannot fork", "assigned to node-b"]


def test_run_is_tried_on_three_nodes_and_no_more() -> None:
    trial = of_three_nodes()
    trial.join(make_hello("node-d"))
    trial.report(1, could_not_start())
    trial.reject(2, attempt=1, node_id="node-b", reason="no interpreter")
    trial.report(3, could_not_start(2, "image is gone"), "node-c")
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert trial.outcome().message == (
        "3 nodes did not start the run (node-a: cannot fork; node-b: no interpreter; node-c: image is gone), "
        "and no more are tried (max_placement_attempts)"
    )


def test_policy_may_leave_it_at_one_node() -> None:
    trial = FleetTrial(config=SchedulingConfig(max_placement_attempts=1))
    trial.join()
    trial.join(make_hello("node-b"))
    trial.launch()
    trial.report(1, could_not_start())
    assert trial.outcome().message == "cannot fork"


def test_outcome_of_the_only_node_stays_as_it_was_told() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    told = could_not_start()
    told.outcome.stderr_tail = "bash: no such file"
    trial.report(1, told)
    assert trial.outcome() == told.outcome


def test_failures_are_remembered_over_a_restart() -> None:
    trial = of_three_nodes()
    trial.report(1, starting())
    trial.report(1, could_not_start())
    trial.report(2, starting(attempt=1), "node-b")
    trial.restart()
    for name in "abc":
        trial.join(make_hello(f"node-{name}", attempts=[starting(attempt=1)] if name == "b" else []))
    trial.report(5, could_not_start(1), "node-b")
    assert trial.node_of() == "node-c"


def test_worker_that_was_seen_is_never_placed_elsewhere() -> None:
    trial = of_three_nodes()
    trial.report(1, running())
    trial.report(1, could_not_start())
    assert trial.phase() == "finished"


def test_failure_to_start_what_is_being_stopped_ends_the_run() -> None:
    trial = of_three_nodes()
    trial.report(1, starting())
    trial.terminate()
    trial.report(1, could_not_start())
    assert trial.phase() == "finished"


def test_adopted_run_whose_launch_is_lost_is_not_placed_elsewhere() -> None:
    trial = FleetTrial()
    trial.join(make_hello("node-b"))
    session = trial.join(make_hello(attempts=[starting()]))
    trial.report(session, could_not_start())
    assert trial.phase() == "finished"


def test_time_with_a_node_that_could_not_start_it_does_not_count_as_waiting() -> None:
    trial = FleetTrial()
    session, other = trial.join(), trial.join(make_hello("node-b"))
    trial.leave(other, "node-b")
    trial.launch(make_launch(max_queue_time=60.0))
    trial.report(session, starting())
    for _ in range(30):
        trial.tick(3.0)
        trial.beat(session, starting())
    trial.report(session, could_not_start())
    trial.tick(55.0)
    assert trial.phase() == "queued"
    trial.tick(10.0)
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_TIMED_OUT
