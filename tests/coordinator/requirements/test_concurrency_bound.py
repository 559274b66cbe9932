"""Bound on what ops use at the same time, against all sets of ops that do not depend on each other."""

import itertools
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.coordinator.core.requirements import concurrency_bound
from runyard.coordinator.core.requirements.concurrency_bound import most_at_once

Graph = dict[str, list[str]]
Amounts = dict[str, int]

amount_lists = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, Amounts]:
    """A graph without cycles, and amounts of some of its ops."""
    names = [f"op{number}" for number in range(draw(st.integers(0, 8)))]
    graph = {name: draw(st.lists(st.sampled_from([*names[:at], "gone"]))) for at, name in enumerate(names)}
    shuffled = draw(st.permutations(names))
    amounts = {name: draw(st.integers(1, 9)) for name in names if draw(st.booleans())}
    return {name: graph[name] for name in shuffled}, amounts


def before(graph: Mapping[str, Sequence[str]], op: str) -> set[str]:
    found: set[str] = set()
    left = [op]
    while left:
        for source in graph[left.pop()]:
            if source in graph and source not in found:
                found.add(source)
                left.append(source)
    return found


def exact(graph: Graph, amounts: Amounts) -> int:
    """The largest sum, found by trying all sets."""
    upstream = {op: before(graph, op) for op in graph}
    sets = itertools.chain.from_iterable(
        itertools.combinations(amounts, size) for size in range(len(amounts) + 1)
    )
    return max(
        sum(amounts[op] for op in chosen)
        for chosen in sets
        if not any(one in upstream[other] for one in chosen for other in chosen)
    )


def layers_of(sizes: Sequence[Sequence[int]]) -> tuple[Graph, Amounts]:
    """Layers of ops, each of which depends on all of the layer before it."""
    names = [[f"{layer}.{at}" for at in range(len(amounts))] for layer, amounts in enumerate(sizes)]
    graph = {name: names[layer - 1] if layer else [] for layer, each in enumerate(names) for name in each}
    amounts = dict(zip(itertools.chain(*names), itertools.chain(*sizes), strict=True))
    return graph, amounts


@given(graphs())
def test_the_bound_is_never_below_what_can_run_at_once(drawn: tuple[Graph, Amounts]) -> None:
    graph, amounts = drawn
    assert exact(graph, amounts) <= most_at_once(graph, amounts) <= sum(amounts.values())


@given(graphs(), st.integers(-1, 5))
def test_a_search_that_is_cut_off_is_never_below_what_can_run_at_once(
    drawn: tuple[Graph, Amounts], edges: int
) -> None:
    graph, amounts = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(concurrency_bound, "_MOST_EDGES", edges)
        bound = most_at_once(graph, amounts)
    assert exact(graph, amounts) <= bound <= sum(amounts.values())


@given(amount_lists)
def test_a_chain_takes_its_largest_amount(amounts: list[int]) -> None:
    graph, by_op = layers_of([[amount] for amount in amounts])
    assert most_at_once(graph, by_op) == max(amounts)


@given(amount_lists)
def test_independent_ops_take_the_sum(amounts: list[int]) -> None:
    graph, by_op = layers_of([amounts])
    assert most_at_once(graph, by_op) == sum(amounts)


@given(st.lists(amount_lists, min_size=1, max_size=6))
def test_layers_that_depend_on_all_of_the_layer_before_take_the_heaviest_layer(
    sizes: list[list[int]],
) -> None:
    graph, by_op = layers_of(sizes)
    assert most_at_once(graph, by_op) == max(map(sum, sizes))


@given(st.integers(0, 30), st.lists(amount_lists, min_size=1, max_size=5), st.integers(0, 30))
def test_a_fan_out_into_branches_and_back_takes_the_sum_of_the_branches(
    first: int, branches: list[list[int]], last: int
) -> None:
    graph: Graph = {"first": []}
    by_op = {"first": first, "last": last}
    for number, branch in enumerate(branches):
        names = ["first", *(f"{number}.{at}" for at in range(len(branch)))]
        graph |= {name: [source] for source, name in itertools.pairwise(names)}
        by_op |= dict(zip(names[1:], branch, strict=True))
    graph["last"] = [f"{number}.{len(branch) - 1}" for number, branch in enumerate(branches)]
    amounts = {op: amount for op, amount in by_op.items() if amount}
    assert most_at_once(graph, amounts) == max(first, sum(map(max, branches)), last)


def test_the_bound_of_random_graphs_is_seldom_far_above_the_exact_amount() -> None:
    chance = random.Random(1)
    ratios = []
    for _ in range(200):
        graph = {str(at): [str(other) for other in range(at) if chance.random() < 0.25] for at in range(10)}
        amounts = {op: chance.choice([1, 2, 4, 16]) for op in graph}
        ratios.append(most_at_once(graph, amounts) / exact(graph, amounts))
    assert sum(ratios) / len(ratios) < 1.02
    assert max(ratios) < 1.5


def test_ten_thousand_ops_in_a_row_are_one_at_a_time() -> None:
    graph = {str(at): [str(at - 1)] for at in range(10_000)}
    assert most_at_once(graph, dict.fromkeys(graph, 7)) == 7


def test_hundreds_of_ops_in_layers_take_the_heaviest_layer() -> None:
    chance = random.Random(1)
    sizes = [[chance.randrange(1, 1 << 40) for _ in range(10)] for _ in range(60)]
    graph, by_op = layers_of(sizes)
    assert most_at_once(graph, by_op) == max(map(sum, sizes))


def test_a_cycle_counts_as_independent() -> None:
    assert most_at_once({"a": ["b"], "b": ["a"]}, {"a": 1, "b": 2}) == 3
