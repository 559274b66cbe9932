"""Nodes that claim a run which another one has: nothing comes of it, once the store can be trusted."""

import pytest
from coordinator.fleet_building import RUN, FleetTrial, finished, make_hello, running

from runyard.coordinator.core.leases import LeaseSettings

OTHER = "node-b"
RECOVERY = 60.0


@pytest.fixture
def trial() -> FleetTrial:
    """Two nodes in session, the first of which has the run; the coordinator was started just now."""
    made = FleetTrial(LeaseSettings(recovery=RECOVERY))
    made.join()
    made.launch()
    made.report(1, running())
    made.join(make_hello(OTHER))
    return made


def settled(trial: FleetTrial) -> FleetTrial:
    """The same, when the coordinator has run for a while."""
    for _ in range(int(RECOVERY)):
        trial.tick(1.0)
        trial.beat(1, running())
        trial.beat(2, node_id=OTHER)
    trial.asked.clear()
    return trial


@pytest.mark.parametrize("attempt", [1, 7])
def test_node_that_claims_a_later_attempt_is_told_to_stop_it(trial: FleetTrial, attempt: int) -> None:
    settled(trial).report(2, running(attempt=attempt), OTHER)
    assert (trial.node_of(), trial.run().attempt, trial.phase()) == ("node-a", 0, "running")
    assert trial.asked.sent(OTHER) == ["stop"]
    assert trial.asked.sent() == []


def test_end_of_a_later_attempt_that_another_node_claims_does_not_count(trial: FleetTrial) -> None:
    settled(trial).report(2, finished(attempt=7), OTHER)
    assert (trial.node_of(), trial.phase()) == ("node-a", "running")
    assert trial.asked.sent(OTHER) == ["report_ack"]


def test_hello_and_heartbeats_claim_no_more_than_reports(trial: FleetTrial) -> None:
    settled(trial).beat(2, running(attempt=7), node_id=OTHER)
    trial.join(make_hello(OTHER, attempts=[running(attempt=8)]))
    assert (trial.node_of(), trial.run(RUN).attempt) == ("node-a", 0)


def test_coordinator_that_was_just_started_believes_the_later_attempt(trial: FleetTrial) -> None:
    """Its store may be an older one."""
    trial.report(2, running(attempt=7), OTHER)
    assert (trial.node_of(), trial.run().attempt) == (OTHER, 7)


def test_run_that_nobody_has_any_more_may_be_claimed(trial: FleetTrial) -> None:
    settled(trial).report(1, finished())
    trial.report(2, running(attempt=7), OTHER)
    assert (trial.node_of(), trial.phase()) == (OTHER, "running")
