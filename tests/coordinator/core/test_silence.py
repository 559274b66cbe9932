"""Silence in the core: what it proves, after how long, and when it is the coordinator that was away."""

import pytest
from coordinator.fleet_building import NODE, FleetTrial, make_hello, make_launch, running

from runyard.coordinator.core.errors import LaunchRefused
from runyard.coordinator.core.events.on_session import on_goodbye
from runyard.coordinator.core.model import Lost, Ready, Suspect, Unreachable
from runyard.v1 import run_pb2

RECOVERED = 100.0
"""Seconds after which a coordinator of these tests has recovered."""


@pytest.fixture
def trial() -> FleetTrial:
    """A fleet with one node, long after the coordinator's start."""
    made = FleetTrial()
    made.tick(after=RECOVERED)
    made.join(make_hello(slots=1))
    return made


def silent_trial(nodes: int, silent: int) -> FleetTrial:
    """A fleet of which some nodes broke off at the same time."""
    trial = FleetTrial()
    trial.tick(after=RECOVERED)
    for number in range(nodes):
        trial.join(make_hello(f"node-{number}", slots=1))
    for number in range(silent):
        trial.leave(number + 1, f"node-{number}")
    return trial


def pass_time(trial: FleetTrial, seconds: float, beating: range) -> None:
    """Time passes, and these nodes go on speaking."""
    for _ in range(round(seconds / 4.0)):
        trial.tick(after=4.0)
        for number in beating:
            trial.beat(number + 1, node_id=f"node-{number}")


@pytest.mark.parametrize(("silent", "given_up"), [(2, True), (3, False)])
def test_runs_of_a_silent_majority_are_not_given_up(silent: int, given_up: bool) -> None:
    trial = silent_trial(nodes=4, silent=0)
    trial.launch(make_launch(stop_after=60.0, grace=5.0))
    trial.report(1, running(), node_id="node-0")
    for number in range(silent):
        trial.leave(number + 1, f"node-{number}")
    pass_time(trial, 600.0, range(silent, 4))
    assert (trial.phase() == "finished") is given_up


def test_frozen_coordinator_gives_every_node_a_lease_to_be_heard_again(trial: FleetTrial) -> None:
    trial.launch(make_launch(stop_after=20.0, grace=5.0))
    trial.report(1, running())
    trial.freeze(3_600.0)
    trial.tick()
    assert isinstance(trial.fleet.nodes[NODE].liveness, Ready)
    assert trial.phase() == "running"


def test_run_with_stop_after_is_given_up_only_when_its_node_has_certainly_stopped_it(
    trial: FleetTrial,
) -> None:
    trial.launch(make_launch(stop_after=20.0, grace=5.0))
    trial.report(1, running())
    trial.leave(1)
    trial.tick(after=35.0)
    assert trial.phase() == "running"
    trial.tick(after=0.1)
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_NODE_LOST


def test_run_without_stop_after_is_never_given_up(trial: FleetTrial) -> None:
    trial.launch()
    trial.report(1, running())
    trial.leave(1)
    trial.tick(after=5_000.0)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Lost)
    assert (trial.phase(), trial.fleet.unreachable(trial.run())) == ("running", True)


def test_agent_that_said_when_it_is_back_is_not_unreachable_before(trial: FleetTrial) -> None:
    trial.step(lambda fleet, at: on_goodbye(fleet, at, NODE, 1, 120.0))
    trial.tick(after=119.0)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Suspect)
    trial.tick(after=2.0)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Unreachable)


def test_run_that_would_stop_between_two_heartbeats_is_refused(trial: FleetTrial) -> None:
    with pytest.raises(LaunchRefused, match=r"stop_after is 5 s, shorter than a node's lease"):
        trial.launch(make_launch(stop_after=5.0))


def test_freeze_right_after_the_start_does_not_shorten_the_time_to_come_back() -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=1))
    trial.launch(make_launch(stop_after=20.0, grace=5.0))
    trial.report(1, running())
    trial.restart()
    trial.tick()
    trial.freeze(10.0)
    trial.tick(after=60.0 - 10.0 + 34.0)
    assert trial.phase() == "running"
    trial.tick(after=2.0)
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_NODE_LOST
