"""Which node is found: in fleets large and small, for runs with a past, and what is said of it."""

import pytest
from coordinator.fleet_building import NODE, RUN, FleetTrial, finished, make_hello, make_launch, running
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.coordinator.core.events.on_operator import on_fence
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.rules import Match, Order, Rule, WeightedCluster
from runyard.coordinator.core.scheduling.config import SchedulingConfig, Strategy
from runyard.coordinator.core.scheduling.filters import Ask
from runyard.coordinator.core.scheduling.node_search import MAX_COMPARED, PlacementRequest, search
from runyard.coordinator.core.scheduling.scores import ScoringContext
from runyard.v1 import run_pb2


def of_memory(amount: int, node: str = "") -> CompiledRequirements:
    return CompiledRequirements(node=node, resources=Resources.of({"slots": 1, "memory": amount}))


@pytest.fixture(scope="module")
def large() -> FleetTrial:
    """A fleet whose nodes all differ in memory: more than are compared one by one."""
    trial = FleetTrial()
    for number in range(MAX_COMPARED + 50):
        trial.join(make_hello(f"node-{number:03}", slots=1, resources={"memory": 100 + number}))
    return trial


@settings(max_examples=60, deadline=None)
@given(memory=st.integers(1, 100 + MAX_COMPARED + 60), number=st.integers(0, 10_000))
def test_a_sample_finds_a_node_if_any_will_do(large: FleetTrial, memory: int, number: int) -> None:
    wanted = of_memory(memory)
    index = large.fleet.index
    request = PlacementRequest(
        ScoringContext(f"run-{number}", wanted),
        index.matcher(Ask(wanted)),
        None,
        (),
        SchedulingConfig().strategy,
    )
    found = search(index, request)
    assert (found is not None) == (memory < 100 + MAX_COMPARED + 50)
    if found is not None:
        known = index.node(found.node_id)
        assert known is not None
        assert known.node.capacity.resources["memory"] >= memory


def test_different_runs_see_different_samples_and_the_same_run_the_same(large: FleetTrial) -> None:
    wanted = of_memory(1)
    index = large.fleet.index

    def find(run_id: str) -> str:
        request = PlacementRequest(
            ScoringContext(run_id, wanted), index.matcher(Ask(wanted)), None, (), Strategy.BINPACK
        )
        found = search(index, request)
        assert found is not None
        return found.node_id

    assert len({find(f"run-{number}") for number in range(50)}) > 5
    assert len({find("run-1") for _ in range(10)}) == 1


# Runs with a past


@pytest.fixture
def trial() -> FleetTrial:
    """Two equal nodes."""
    made = FleetTrial()
    made.join()
    made.join(make_hello("node-b"))
    return made


@pytest.mark.parametrize(
    ("kind", "goes_to"),
    [
        (run_pb2.OUTCOME_KIND_EXIT_UNKNOWN, "node-b"),
        (run_pb2.OUTCOME_KIND_FAILED, NODE),
    ],
)
def test_resume_goes_elsewhere_if_it_was_the_node_that_failed(
    trial: FleetTrial, kind: run_pb2.OutcomeKind.ValueType, goes_to: str
) -> None:
    trial.launch()
    assert trial.node_of() == NODE
    trial.report(1, finished(kind=kind))
    trial.launch(make_launch(resume_number=1))
    assert trial.node_of() == goes_to


def test_resume_stays_away_from_every_node_that_was_lost_and_remembers_over_a_restart(
    trial: FleetTrial,
) -> None:
    trial.join(make_hello("node-c"))
    trial.launch()
    trial.leave(1)
    trial.step(lambda fleet, at: on_fence(fleet, at, NODE, "it burned"))
    trial.launch(make_launch(resume_number=1))
    trial.report(2, finished(attempt=1, kind=run_pb2.OUTCOME_KIND_EXIT_UNKNOWN), "node-b")
    trial.restart()
    for node_id in (NODE, "node-b", "node-c"):
        trial.join(make_hello(node_id))
    trial.launch(make_launch(resume_number=2))
    assert trial.run().avoided == (NODE, "node-b")
    assert trial.node_of() == "node-c"


def test_resume_goes_back_to_the_node_that_failed_if_there_is_no_other() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.report(1, finished(kind=run_pb2.OUTCOME_KIND_START_FAILED))
    trial.launch(make_launch(resume_number=1))
    assert trial.node_of() == NODE


def test_run_that_was_adopted_may_exceed_what_the_node_has_and_nothing_more_is_given() -> None:
    trial = FleetTrial()
    session = trial.join(make_hello(slots=2, resources={"memory": 4}))
    told = running("lost")
    told.requirements.resources["memory"] = 9
    trial.report(session, told)
    assert trial.fleet.allocated(NODE) == Resources.of({"slots": 1, "memory": 9})
    trial.launch(make_launch(requirements=of_memory(1)))
    assert trial.phase() == "queued"
    trial.report(session, finished("lost"))
    assert trial.phase() == "assigned"


# What is said


def because(trial: FleetTrial, run_id: str = RUN) -> str:
    place = trial.run(run_id).place
    assert place is not None
    return place.because


def test_choice_says_among_how_many_and_by_what(trial: FleetTrial) -> None:
    trial.launch()
    assert because(trial) == "best of 2 free nodes by bin-packing"
    trial.launch(make_launch("named", requirements=CompiledRequirements(node="node-b")))
    assert because(trial, "named") == "the only free node"


def test_choice_says_how_long_the_run_waited() -> None:
    trial = FleetTrial()
    session = trial.join(make_hello(slots=1))
    trial.launch(make_launch("first"))
    trial.launch()
    for _ in range(30):
        trial.beat(session, running("first"))
        trial.tick(4.0)
    trial.report(session, finished("first"))
    assert because(trial) == "the only free node; after 2 min in the queue"


def test_choice_names_the_rule_and_where_the_run_spilled_from() -> None:
    clusters = (WeightedCluster("b"), WeightedCluster("a"))
    rule = Rule("gpu", Match(), clusters, Order.FIRST_FIT, spill_after=120.0)
    trial = FleetTrial(config=SchedulingConfig(rules=(rule,)))
    sessions = {name: trial.join(make_hello(name, cluster=name, slots=1)) for name in ("a", "b")}
    trial.launch(make_launch("first"))
    trial.launch()
    assert because(trial, "first") == "the only free node; rule gpu: cluster b"
    for _ in range(30):
        trial.beat(sessions["a"], node_id="a")
        trial.beat(sessions["b"], running("first"), node_id="b")
        trial.tick(4.0)
    assert because(trial) == (
        "the only free node; rule gpu: cluster a, after 2 min in the queue spilled from b"
    )
