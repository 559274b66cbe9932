"""The heaviest set of nodes of which none waits for another, against trying all sets."""

import itertools
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.coordinator.core.requirements import antichain
from runyard.coordinator.core.requirements.antichain import heaviest_at_once

Graph = dict[str, list[str]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, dict[str, int]]:
    """A graph without cycles, and weights of some of its nodes."""
    names = [f"op{number}" for number in range(draw(st.integers(0, 8)))]
    graph = {name: draw(st.lists(st.sampled_from([*names[:at], "gone"]))) for at, name in enumerate(names)}
    shuffled = draw(st.permutations(names))
    weights = {name: draw(st.integers(1, 9)) for name in names if draw(st.booleans())}
    return {name: graph[name] for name in shuffled}, weights


def before(graph: Mapping[str, Sequence[str]], node: str) -> set[str]:
    found: set[str] = set()
    left = [node]
    while left:
        for source in graph[left.pop()]:
            if source in graph and source not in found:
                found.add(source)
                left.append(source)
    return found


def by_trying_all(graph: Graph, weights: dict[str, int]) -> int:
    waits = {node: before(graph, node) for node in graph}
    sets = itertools.chain.from_iterable(
        itertools.combinations(weights, size) for size in range(len(weights) + 1)
    )
    return max(
        sum(weights[node] for node in chosen)
        for chosen in sets
        if not any(one in waits[other] for one in chosen for other in chosen)
    )


@given(graphs())
def test_it_is_the_heaviest_of_all_sets(drawn: tuple[Graph, dict[str, int]]) -> None:
    graph, weights = drawn
    assert heaviest_at_once(graph, weights) == by_trying_all(graph, weights)


@given(graphs())
def test_the_bound_for_large_graphs_is_never_too_little(drawn: tuple[Graph, dict[str, int]]) -> None:
    graph, weights = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(antichain, "MOST_EXACT", -1)
        bound = heaviest_at_once(graph, weights)
    assert by_trying_all(graph, weights) <= bound <= sum(weights.values())


@given(graphs(), st.integers(0, 3))
def test_a_search_that_is_cut_off_is_never_too_little(
    drawn: tuple[Graph, dict[str, int]], pushes: int
) -> None:
    graph, weights = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(antichain, "_MOST_PUSHES", pushes)
        bound = heaviest_at_once(graph, weights)
    assert by_trying_all(graph, weights) <= bound <= sum(weights.values())


def test_ten_thousand_ops_in_a_row_are_one_at_a_time() -> None:
    graph = {str(at): [str(at - 1)] for at in range(10_000)}
    assert heaviest_at_once(graph, dict.fromkeys(graph, 7)) == 7


def test_a_layered_graph_of_hundreds_of_ops_takes_its_heaviest_layer() -> None:
    chance = random.Random(1)
    layers = [[f"{layer}.{at}" for at in range(10)] for layer in range(30)]
    graph = {name: list(layers[at - 1]) if at else [] for at, layer in enumerate(layers) for name in layer}
    weights = {name: chance.randrange(1, 1 << 40) for name in graph}
    heaviest = max(sum(weights[name] for name in layer) for layer in layers)
    assert heaviest_at_once(graph, weights) == heaviest


def test_a_circle_counts_as_side_by_side() -> None:
    assert heaviest_at_once({"a": ["b"], "b": ["a"]}, {"a": 1, "b": 2}) >= 2
