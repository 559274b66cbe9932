"""Runs go where they would start warm, if nothing heavier speaks for another node."""

from collections.abc import Collection, Mapping

import pytest
from coordinator.fleet_building import FleetTrial, make_hello, make_launch, warm_server
from coordinator.scheduling.placement import oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.scheduling import node_search as searching
from runyard.coordinator.core.scheduling.config import Strategy
from runyard.coordinator.core.scheduling.filters import Ask, View
from runyard.coordinator.core.scheduling.node_search import PlacementRequest, search, search_among
from runyard.coordinator.core.scheduling.scores import ScoringContext
from runyard.v1 import fleet_pb2

SHOP, BAKERY = "shop.py", "bakery.py"
"""Code locations."""


def fleet_of(slots: Mapping[str, int]) -> FleetTrial:
    """Nodes with so many slots; the number of the first one's session is 1."""
    trial = FleetTrial()
    for node_id, count in slots.items():
        trial.join(make_hello(node_id, slots=count))
    return trial


def placed(trial: FleetTrial, run_id: str = "run-1", location: str = SHOP) -> tuple[str, str]:
    """Launches a run; gives its node, and why it is there."""
    trial.launch(make_launch(run_id, location=location))
    place = trial.run(run_id).place
    assert place is not None
    return place.node, place.because


def quest_for(
    trial: FleetTrial,
    context: ScoringContext,
    excluded: Collection[str] = (),
    strategy: Strategy = Strategy.BINPACK,
) -> PlacementRequest:
    return PlacementRequest(
        context, trial.fleet.index.matcher(Ask(context.requirements)), None, excluded, strategy
    )


def test_a_run_goes_to_the_warm_node_although_another_would_be_fuller() -> None:
    trial = fleet_of({"large": 8, "small": 2})
    trial.warm_up(1, warm_server(SHOP), node_id="large")
    assert placed(trial) == ("large", "best of 2 free nodes by bin-packing; warm for shop.py")
    assert placed(trial, "other", BAKERY) == ("small", "best of 2 free nodes by bin-packing")


def test_of_equal_nodes_the_warm_one_is_taken_and_when_it_is_full_another() -> None:
    trial = fleet_of({"a": 1, "b": 1, "c": 1})
    trial.warm_up(2, warm_server(SHOP), node_id="b")
    assert [placed(trial, f"run-{number}")[0] for number in range(3)] == ["b", "a", "c"]


def test_warmth_is_not_named_where_it_decided_nothing() -> None:
    trial = fleet_of({"a": 1, "b": 2})
    trial.warm_up(1, warm_server(SHOP), node_id="a")
    assert placed(trial) == ("a", "best of 2 free nodes by bin-packing")
    assert placed(trial, "second") == ("b", "the only free node")


def test_a_node_is_warm_from_its_hello_on() -> None:
    trial = fleet_of({"a": 1})
    hello = make_hello("b", slots=1)
    hello.warm_servers.append(warm_server(BAKERY, SHOP))
    trial.join(hello)
    assert placed(trial)[0] == "b"


@pytest.mark.parametrize(
    "state",
    [
        fleet_pb2.WARM_SERVER_STATE_PRELOADING,
        fleet_pb2.WARM_SERVER_STATE_UNUSABLE,
        fleet_pb2.WARM_SERVER_STATE_RESTING,
    ],
)
def test_a_server_that_is_ready_no_more_draws_no_run(state: fleet_pb2.WarmServerState.ValueType) -> None:
    trial = fleet_of({"a": 1, "b": 1})
    trial.warm_up(2, warm_server(SHOP), node_id="b")
    trial.warm_up(2, warm_server(SHOP, state=state), node_id="b")
    assert placed(trial)[0] == "a"
    assert [each.state for each in trial.fleet.nodes["b"].warm_servers] == [state]


def test_a_node_that_failed_the_run_is_avoided_even_if_it_is_warm() -> None:
    trial = fleet_of({"a": 1, "b": 1})
    trial.warm_up(1, warm_server(SHOP), node_id="a")
    for avoided, expected in ((), "a"), (("a",), "b"), (("a", "b"), "a"):
        context = ScoringContext("run-1", CompiledRequirements(), SHOP, avoided)
        found = search(trial.fleet.index, quest_for(trial, context))
        assert found is not None
        assert found.node_id == expected


def test_a_sample_of_many_groups_holds_the_warm_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MAX_COMPARED", 4)
    monkeypatch.setattr(searching, "SAMPLE_SIZE", 4)
    trial = fleet_of({f"node-{slots}": slots for slots in range(2, 22)})
    trial.warm_up(13, warm_server(SHOP), node_id="node-14")
    for number in range(20):
        found = search(
            trial.fleet.index, quest_for(trial, ScoringContext(f"run-{number}", CompiledRequirements(), SHOP))
        )
        assert found is not None
        assert found.node_id == "node-14"


names = st.sampled_from([f"node-{letter}" for letter in "abcdefgh"])
some_names = st.sets(names, max_size=3)
warmth = st.dictionaries(names, st.sets(st.sampled_from([SHOP, BAKERY])))
seekers = st.builds(
    ScoringContext,
    run_id=st.uuids().map(str),
    requirements=st.sampled_from([0, 2, 4]).map(
        lambda memory: CompiledRequirements(resources=Resources.of({"slots": 1, "memory": memory}))
    ),
    location=st.sampled_from([SHOP, BAKERY, "market.py"]),
    avoided=some_names.map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.dictionaries(names, st.sampled_from([(1, 4), (2, 4), (2, 8), (3, 8)]), min_size=1),
    warm=warmth,
    later=warmth,
    seekers=st.lists(seekers, min_size=1, max_size=8),
    refused=some_names,
    strategy=st.sampled_from(Strategy),
)
def test_the_node_that_is_found_is_the_best_by_rating_every_one(
    sizes: dict[str, tuple[int, int]],
    warm: dict[str, set[str]],
    later: dict[str, set[str]],
    seekers: list[ScoringContext],
    refused: set[str],
    strategy: Strategy,
) -> None:
    trial = FleetTrial()
    sessions = {
        node_id: trial.join(make_hello(node_id, slots=slots, resources={"memory": memory}))
        for node_id, (slots, memory) in sizes.items()
    }

    def tell(told: dict[str, set[str]]) -> None:
        for node_id in told.keys() & sessions.keys():
            trial.warm_up(sessions[node_id], warm_server(*told[node_id]), node_id=node_id)

    tell(warm)
    for number, context in enumerate(seekers):
        fleet = trial.fleet
        views = [
            View(node, oracle.free(fleet, node), refused=node.node_id in refused)
            for node in fleet.nodes.values()
        ]
        expected = oracle.best_node(views, Ask(context.requirements), context, strategy)
        request = quest_for(trial, context, refused, strategy)
        for found in (search(fleet.index, request), search_among(fleet.index, request, fleet.nodes)):
            assert (found.node_id if found else None) == expected
        wanted = CompiledRequirements(resources=context.requirements.resources, node=expected or "")
        if expected:
            trial.launch(make_launch(f"run-{number}", requirements=wanted, location=context.location))
        if number == len(seekers) // 2:
            tell(later)
