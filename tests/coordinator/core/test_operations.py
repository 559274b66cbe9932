"""What operators ask of nodes: cordon, drain, uncordon, fence, and to make warm servers anew."""

from collections.abc import Callable

import pytest
from coordinator.fleet_building import (
    NODE,
    RUN,
    FleetTrial,
    finished,
    make_hello,
    make_launch,
    running,
    warm_server,
)

from runyard.coordinator.core.errors import NodeIsSilent, NodeStillSpeaks, UnknownNode, UnknownWarmServer
from runyard.coordinator.core.events.on_operator import on_cordon, on_drain, on_fence, on_uncordon
from runyard.coordinator.core.events.on_warm_servers import on_refresh_warm_servers
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.model import Cordoned, Draining, Lost, Open
from runyard.v1 import agent_pb2, fleet_pb2, run_pb2


@pytest.fixture
def trial() -> FleetTrial:
    """A node with a live run."""
    made = FleetTrial()
    made.join(make_hello(slots=2))
    made.launch()
    made.report(1, running())
    made.asked.clear()
    return made


def test_cordoned_node_takes_nothing_new_and_keeps_what_it_has(trial: FleetTrial) -> None:
    trial.step(lambda fleet, at: on_cordon(fleet, at, NODE))
    trial.launch(make_launch("second"))
    assert (trial.phase(), trial.phase("second")) == ("running", "queued")
    assert situation(trial.fleet, trial.run("second")) == "waiting: 0/1 nodes available: 1 cordoned"


def test_uncordoned_node_takes_what_waited_for_it_at_once(trial: FleetTrial) -> None:
    trial.step(lambda fleet, at: on_cordon(fleet, at, NODE))
    trial.launch(make_launch("second"))
    trial.step(lambda fleet, at: on_uncordon(fleet, at, NODE))
    assert trial.phase("second") == "assigned"


def test_cordon_outlives_a_session_and_the_coordinator(trial: FleetTrial) -> None:
    trial.step(lambda fleet, at: on_cordon(fleet, at, NODE))
    trial.restart()
    trial.join(make_hello(attempts=[running()]))
    assert trial.fleet.nodes[NODE].service == Cordoned()


def test_drain_without_a_deadline_waits_for_its_runs(trial: FleetTrial) -> None:
    trial.step(lambda fleet, at: on_drain(fleet, at, NODE, None))
    for _ in range(100):
        trial.tick(after=10.0)
        trial.beat(1, running())
    assert trial.phase() == "running"


def test_drain_stops_what_is_left_when_its_deadline_has_passed(trial: FleetTrial) -> None:
    trial.step(lambda fleet, at: on_drain(fleet, at, NODE, 60.0))
    for _ in range(59):
        trial.tick(after=1.0)
        trial.beat(1, running())
    assert trial.phase() == "running"
    trial.tick(after=1.0)
    assert trial.phase() == "stopping"
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_STOPPED))
    assert "drained" in trial.outcome().message


def test_repeated_drain_sets_its_deadline_anew(trial: FleetTrial) -> None:
    trial.step(lambda fleet, at: on_drain(fleet, at, NODE, 60.0))
    trial.tick(after=50.0)
    trial.step(lambda fleet, at: on_drain(fleet, at, NODE, 60.0))
    trial.tick(after=50.0)
    assert trial.phase() == "running"
    assert trial.fleet.nodes[NODE].service == Draining(60.0, trial.clock - 50.0)


def test_fence_ends_the_runs_of_a_silent_node_with_the_operators_words(trial: FleetTrial) -> None:
    trial.leave(1)
    assert trial.step(lambda fleet, at: on_fence(fleet, at, NODE, "unplugged by AB")) == 1
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_NODE_LOST
    assert "unplugged by AB" in trial.outcome().message
    assert isinstance(trial.fleet.nodes[NODE].liveness, Lost)


def test_worker_that_lives_on_in_spite_of_a_fence_is_stopped_when_its_node_is_back(trial: FleetTrial) -> None:
    trial.leave(1)
    trial.step(lambda fleet, at: on_fence(fleet, at, NODE, "unplugged by AB"))
    trial.asked.clear()
    trial.join(make_hello(attempts=[running()]))
    assert "stop" in trial.asked.sent()
    assert trial.phase() == "finished"


def test_node_in_session_cannot_be_fenced(trial: FleetTrial) -> None:
    with pytest.raises(NodeStillSpeaks, match="drain it"):
        trial.step(lambda fleet, at: on_fence(fleet, at, NODE, "unplugged by AB"))
    assert trial.phase(RUN) == "running"


@pytest.mark.parametrize("verb", [on_cordon, on_uncordon])
def test_node_that_never_joined_is_not_known(trial: FleetTrial, verb: Callable[..., object]) -> None:
    with pytest.raises(UnknownNode, match="'elsewhere' has ever joined"):
        trial.step(lambda fleet, at: verb(fleet, at, "elsewhere"))
    assert trial.fleet.nodes[NODE].service == Open()


def refresh(trial: FleetTrial, name: str = "", node_id: str = NODE) -> int:
    return trial.step(lambda fleet, _: on_refresh_warm_servers(fleet, node_id, name))


def test_a_refresh_asks_the_node_for_all_servers_that_do_not_rest_or_for_one(trial: FleetTrial) -> None:
    resting = warm_server("old.py", name="old", state=fleet_pb2.WARM_SERVER_STATE_RESTING)
    unusable = warm_server("odd.py", name="odd", state=fleet_pb2.WARM_SERVER_STATE_UNUSABLE)
    trial.warm_up(1, warm_server("shop.py", name="new"), unusable, resting)
    trial.asked.clear()
    assert (refresh(trial), refresh(trial, "old")) == (2, 1)
    assert [message for _, message in trial.asked.messages()] == [
        agent_pb2.SessionResponse(refresh_warm_servers=agent_pb2.RefreshWarmServers()),
        agent_pb2.SessionResponse(refresh_warm_servers=agent_pb2.RefreshWarmServers(name="old")),
    ]
    trial.asked.assert_nothing_else()


def test_a_refresh_of_a_node_without_warm_servers_is_no_mistake(trial: FleetTrial) -> None:
    assert refresh(trial) == 0


def test_a_refresh_that_cannot_be_carried_out_says_why(trial: FleetTrial) -> None:
    with pytest.raises(UnknownNode, match="no node 'nobody' has ever joined"):
        refresh(trial, node_id="nobody")
    with pytest.raises(UnknownWarmServer, match=f"node {NODE} has no warm server 'x'; it has none at all"):
        refresh(trial, "x")
    trial.warm_up(1, warm_server("shop.py", name="one"), warm_server("bakery.py", name="two"))
    with pytest.raises(UnknownWarmServer, match="it has one, two"):
        refresh(trial, "x")
    trial.leave(1)
    with pytest.raises(NodeIsSilent, match="is not in session"):
        refresh(trial)
