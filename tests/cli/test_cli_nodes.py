"""What operators do with nodes from the command line, against a fake coordinator."""

import threading

import pytest
from cli.commands import Command, Result
from client.fake_coordinator import FakeCoordinator, make_node
from harness.waiting import wait_until

from runyard.v1 import fleet_pb2


@pytest.fixture
def node(coordinator: FakeCoordinator) -> fleet_pb2.Node:
    """A node that two runs live on."""
    found = make_node("n1", slots=4, used=2)
    found.last_heard_at.GetCurrentTime()
    coordinator.nodes.append(found)
    return found


@pytest.mark.usefixtures("node")
def test_a_cordon_shows_until_it_is_ended(runyard: Command) -> None:
    assert runyard("node", "cordon", "n1") == Result(0, "node n1 is cordoned; 2 live runs there\n", "")
    assert "ready (cordoned)" in runyard("node", "list").out
    assert "ready (cordoned)" in runyard("node", "show", "n1").out
    assert runyard("node", "uncordon", "n1") == Result(0, "node n1 takes new runs\n", "")
    assert "cordoned" not in runyard("node", "list").out


@pytest.mark.usefixtures("node")
def test_a_drain_returns_at_once_and_shows(coordinator: FakeCoordinator, runyard: Command) -> None:
    drained = runyard("node", "drain", "n1", "--deadline", "10m")
    assert drained == Result(0, "node n1 is being drained; 2 live runs there\n", "")
    (request,) = coordinator.requests("DrainNode")
    assert isinstance(request, fleet_pb2.DrainNodeRequest)
    assert request.deadline.seconds == 600
    assert "ready (draining)" in runyard("node", "list").out


def test_a_drain_with_wait_returns_when_the_node_is_empty(
    coordinator: FakeCoordinator, runyard: Command, node: fleet_pb2.Node
) -> None:
    def run_empty() -> None:
        wait_until(lambda: coordinator.requests("GetNode"), "the command looks")
        node.allocated.clear()

    ending = threading.Thread(target=run_empty)
    ending.start()
    drained = runyard("node", "drain", "n1", "--wait")
    ending.join()
    assert drained == Result(0, "node n1 is drained: no run is left there\n", "")


@pytest.mark.usefixtures("node")
def test_a_drain_that_takes_too_long_has_failed(runyard: Command) -> None:
    drained = runyard("node", "drain", "n1", "--wait", "--timeout", "0.3s")
    assert drained.code == 1
    assert drained.err == "runyard: node n1 still has 2 live runs after 0.3 s; the drain stays in force\n"


def test_a_drain_that_somebody_ends_is_waited_for_no_longer(
    coordinator: FakeCoordinator, runyard: Command, node: fleet_pb2.Node
) -> None:
    def uncordon() -> None:
        wait_until(lambda: coordinator.requests("DrainNode"), "the command drains")
        wait_until(lambda: node.draining, "the drain is in force")
        node.draining = False

    ending = threading.Thread(target=uncordon)
    ending.start()
    drained = runyard("node", "drain", "n1", "--wait")
    ending.join()
    assert (drained.code, drained.err) == (
        1,
        "runyard: node n1 is no longer draining: the drain was ended\n",
    )


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("option", ["--deadline", "--timeout"])
def test_a_time_that_makes_no_sense_is_a_usage_error(runyard: Command, option: str) -> None:
    drained = runyard("node", "drain", "n1", option, "soon")
    assert drained.code == 2
    assert f"{option}: 'soon' is not a span of time; write seconds as 90" in drained.err


def test_fencing_without_confirm_explains_what_it_means(
    coordinator: FakeCoordinator, runyard: Command, node: fleet_pb2.Node
) -> None:
    node.state = fleet_pb2.NODE_STATE_UNREACHABLE
    for argv in ([], ["--reason", "its plug is out"]):
        fenced = runyard("node", "fence", "n1", *argv)
        assert fenced.code == 2
        assert "node n1 was last heard of " in fenced.err
        assert "has 2 live runs" in fenced.err
        assert "executed twice at once" in fenced.err
        assert "--confirm --reason TEXT" in fenced.err
    assert coordinator.requests("FenceNode") == []


def test_fencing_needs_a_reason_and_ends_the_runs(
    coordinator: FakeCoordinator, runyard: Command, node: fleet_pb2.Node
) -> None:
    node.state = fleet_pb2.NODE_STATE_UNREACHABLE
    unfounded = runyard("node", "fence", "n1", "--confirm", "--reason", " ")
    assert unfounded.code == 2
    assert "--reason is missing" in unfounded.err
    fenced = runyard("node", "fence", "n1", "--confirm", "--reason", "its plug is out")
    assert fenced == Result(0, "node n1 is fenced: 2 runs ended as node_lost\n", "")
    assert "lost" in runyard("node", "list").out.splitlines()[1].split()


@pytest.mark.usefixtures("node")
def test_a_node_that_still_speaks_is_not_fenced(runyard: Command) -> None:
    fenced = runyard("node", "fence", "n1", "--confirm", "--reason", "it looked dead")
    assert fenced.code == 1
    assert "n1 is in session" in fenced.err


@pytest.mark.parametrize("verb", ["cordon", "uncordon", "drain", "fence"])
def test_a_node_that_never_joined_is_not_found(runyard: Command, verb: str) -> None:
    assert runyard("node", verb, "n9").code == 4


def test_a_node_shows_what_it_is_short_of(runyard: Command, node: fleet_pb2.Node) -> None:
    message = "12Mi of 8Gi of memory left; new runs are accepted with 256Mi"
    node.cordoned = True
    node.pressures.add(kind=fleet_pb2.PRESSURE_KIND_MEMORY, message=message)
    assert "ready (cordoned, memory pressure)" in runyard("node", "list").out
    assert f"memory pressure: {message}" in runyard("node", "show", "n1").out
