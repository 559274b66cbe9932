"""Nodes that are short of something: nothing new is placed there, and what is there goes on."""

import pytest
from coordinator.fleet_building import NODE, FleetTrial, make_hello, running

from runyard.coordinator.core.explain.explanation import explain_run
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.grpc.messages.views import node_view
from runyard.v1 import fleet_pb2

SHORT = fleet_pb2.Pressure(kind=fleet_pb2.PRESSURE_KIND_MEMORY, message="12Mi of 8Gi of memory left")


def test_nothing_new_is_placed_on_a_node_under_pressure_until_it_is_over() -> None:
    trial = FleetTrial()
    session = trial.join()
    trial.beat(session, pressures=[SHORT])
    trial.launch()
    assert trial.phase() == "queued"
    assert situation(trial.fleet, trial.run()) == "waiting: 0/1 nodes available: 1 under memory pressure"
    trial.beat(session)
    assert trial.node_of() == NODE


def test_runs_go_to_other_nodes_meanwhile() -> None:
    trial = FleetTrial()
    trial.beat(trial.join(), pressures=[SHORT])
    trial.join(make_hello("node-b"))
    trial.launch()
    assert trial.node_of() == "node-b"


def test_run_that_is_there_goes_on() -> None:
    trial = FleetTrial()
    session = trial.join()
    trial.launch()
    trial.beat(session, running(), pressures=[SHORT])
    assert (trial.phase(), trial.node_of()) == ("running", NODE)


def test_node_that_joins_under_pressure_is_not_used() -> None:
    trial = FleetTrial()
    hello = make_hello()
    hello.pressures.append(SHORT)
    trial.join(hello)
    trial.launch()
    assert trial.phase() == "queued"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (fleet_pb2.PRESSURE_KIND_DISK, "disk pressure"),
        (fleet_pb2.PRESSURE_KIND_PIDS, "pids pressure"),
        (99, "pressure"),
    ],
    ids=["disk", "pids", "a kind of a newer agent"],
)
def test_reason_names_what_is_short(kind: fleet_pb2.PressureKind.ValueType, reason: str) -> None:
    trial = FleetTrial()
    trial.beat(trial.join(), pressures=[fleet_pb2.Pressure(kind=kind)])
    trial.launch()
    assert situation(trial.fleet, trial.run()) == f"waiting: 0/1 nodes available: 1 under {reason}"
    explained = explain_run(trial.fleet, trial.now, trial.run())
    assert f"one node to be no longer under {reason}" in str(explained)


def test_node_shows_what_it_is_short_of() -> None:
    trial = FleetTrial()
    trial.beat(trial.join(), pressures=[SHORT])
    assert list(node_view(trial.fleet, trial.fleet.nodes[NODE]).pressures) == [SHORT]
