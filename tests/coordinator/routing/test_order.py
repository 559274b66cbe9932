"""Order in which a run tries its clusters, and the time when each of them opens to it."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.coordinator.core.routing.order import ClusterLoad, cluster_order, next_opening, open_count
from runyard.coordinator.core.routing.rules import Order, Route, WeightedCluster

BUSY = ClusterLoad(utilization=0.9, live_runs=2)
CALM = ClusterLoad(utilization=0.1, live_runs=7)
FULL = ClusterLoad(utilization=1.0, live_runs=9)


def route(order: Order, *names: str, spill_after: float = 0.0) -> Route:
    return Route("a rule", tuple(map(WeightedCluster, names)), order, spill_after)


def weighted(**weights: int) -> Route:
    clusters = tuple(WeightedCluster(name, weight) for name, weight in weights.items())
    return Route("a rule", clusters, Order.WEIGHTED)


def first_choices(drawn: Route, runs: int) -> Counter[str]:
    return Counter(cluster_order(drawn, f"run-{number}", {})[0] for number in range(runs))


LOADED = {
    "first_fit keeps the order of the list": (Order.FIRST_FIT, {"a": FULL, "b": CALM}, "abc"),
    "least_loaded goes by the scarcest resource": (
        Order.LEAST_LOADED,
        {"a": BUSY, "b": CALM, "c": FULL},
        "bac",
    ),
    "spread goes by the number of runs": (Order.SPREAD, {"a": CALM, "b": BUSY, "c": FULL}, "bac"),
    "equal load keeps the order of the list": (Order.LEAST_LOADED, {"a": BUSY, "b": BUSY, "c": BUSY}, "abc"),
    "equal numbers of runs keep the order": (Order.SPREAD, {"a": BUSY, "b": CALM, "c": BUSY}, "acb"),
    "a full cluster comes before one without nodes": (Order.LEAST_LOADED, {"b": FULL}, "bac"),
    "many runs come before a cluster without nodes": (Order.SPREAD, {"c": FULL}, "cab"),
}


@pytest.mark.parametrize("case", LOADED)
def test_load_decides_the_order_if_the_rule_compares_loads(case: str) -> None:
    order, loads, expected = LOADED[case]
    assert "".join(cluster_order(route(order, "a", "b", "c"), "run-1", loads)) == expected


@pytest.mark.parametrize("order", Order)
def test_route_without_clusters_has_no_order(order: Order) -> None:
    assert cluster_order(Route(order=order), "run-1", {"a": CALM}) == ()
    assert open_count(Route(order=order, spill_after=5.0), 100.0) == 0
    assert next_opening(Route(order=order, spill_after=5.0), 0.0) is None


# By weight


@given(st.text(), st.dictionaries(st.text(), st.integers(1, 1_000_000), min_size=1, max_size=6))
def test_every_run_gets_every_cluster_of_the_route_once_and_the_same_order_again(
    run_id: str, weights: dict[str, int]
) -> None:
    drawn = weighted(**weights)
    order = cluster_order(drawn, run_id, {})
    assert sorted(order) == sorted(weights)
    assert order == cluster_order(drawn, run_id, dict.fromkeys(weights, FULL))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=4))
def test_weights_share_out_the_runs_in_proportion(weights: list[int]) -> None:
    runs = 800
    names = [f"cluster-{number}" for number in range(len(weights))]
    chosen = first_choices(weighted(**dict(zip(names, weights, strict=True))), runs)
    for name, weight in zip(names, weights, strict=True):
        share = weight / sum(weights)
        # Six standard deviations of a binomial distribution: one failure in a billion.
        assert abs(chosen[name] - runs * share) <= 6 * math.sqrt(runs * share * (1 - share)) + 1


def test_second_choices_go_by_weight_too() -> None:
    drawn = weighted(first=10, second=3, third=1)
    orders = [cluster_order(drawn, f"run-{number}", {}) for number in range(2_000)]
    seconds = Counter(order[1] for order in orders if order[0] == "first")
    assert 0.65 < seconds["second"] / seconds.total() < 0.85


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 20))
def test_another_cluster_takes_runs_and_moves_none_between_the_others(
    weights: dict[str, int], weight: int
) -> None:
    before = weighted(**weights)
    after = weighted(**weights, **{"": weight})
    for number in range(40):
        run_id = f"run-{number}"
        order = cluster_order(after, run_id, {})
        assert tuple(name for name in order if name) == cluster_order(before, run_id, {})


def test_names_decide_and_not_their_places_in_the_list() -> None:
    assert first_choices(weighted(a=1, b=2), 100) == first_choices(weighted(b=2, a=1), 100)


# Opening one after the other


@pytest.mark.parametrize(
    ("waited", "opened", "following"),
    [
        (-1.0, 1, 60.0),
        (0.0, 1, 60.0),
        (59.9, 1, 60.0),
        (60.0, 2, 120.0),
        (119.0, 2, 120.0),
        (120.0, 3, None),
        (1e9, 3, None),
    ],
)
@pytest.mark.parametrize("order", [Order.FIRST_FIT, Order.WEIGHTED])
def test_waiting_opens_one_cluster_after_the_other(
    order: Order, waited: float, opened: int, following: float | None
) -> None:
    spilling = route(order, "a", "b", "c", spill_after=60.0)
    assert open_count(spilling, waited) == opened
    assert next_opening(spilling, waited) == following


@pytest.mark.parametrize("order", Order)
def test_without_spill_after_all_clusters_are_open(order: Order) -> None:
    at_once = route(order, "a", "b", "c")
    assert (open_count(at_once, 0.0), next_opening(at_once, 0.0)) == (3, None)


@pytest.mark.parametrize("order", [Order.LEAST_LOADED, Order.SPREAD])
def test_clusters_that_are_compared_open_all_at_once(order: Order) -> None:
    assert open_count(route(order, "a", "b", spill_after=60.0), 0.0) == 2


@given(
    st.floats(1e-6, 1e8, allow_nan=False),
    st.floats(0, 1e9, allow_nan=False),
    st.integers(1, 30),
)
def test_next_opening_is_later_and_opens_exactly_one_more(spill: float, waited: float, clusters: int) -> None:
    spilling = route(Order.FIRST_FIT, *map(str, range(clusters)), spill_after=spill)
    opening = next_opening(spilling, waited)
    if opening is None:
        assert open_count(spilling, waited) == clusters
    else:
        assert opening > waited
        assert open_count(spilling, opening) == open_count(spilling, waited) + 1
