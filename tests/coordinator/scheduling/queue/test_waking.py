"""Runs that wait are woken by what happens, and cost nothing while nothing does."""

from dataclasses import replace

import pytest
from coordinator.fleet_building import make_hello, make_launch
from coordinator.scheduling.queue.crowd import Crowd

from runyard.coordinator.core.events import place_waiting as placing
from runyard.coordinator.core.events.on_operator import on_cordon
from runyard.coordinator.core.events.place_waiting import place_waiting
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Instant, Open
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.rules import Match, Rule, WeightedCluster
from runyard.coordinator.core.scheduling.config import NoNodeAction, NoRuleAction, Quota, SchedulingConfig
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.node_search import Placement, PlacementRequest, search, search_among
from runyard.coordinator.core.scheduling.scheduling_pass import MAX_FREED_TRIED

SPILLS = Rule("spills", Match(), (WeightedCluster("west"), WeightedCluster("east")), spill_after=60.0)


class Looks:
    """Counts how often a run looked for a node."""

    def __init__(self) -> None:
        self.at_all = 0
        self.at_few = 0

    def take(self) -> tuple[int, int]:
        """The numbers since the last call: looks at all nodes, and at freed ones."""
        counted = self.at_all, self.at_few
        self.at_all = self.at_few = 0
        return counted


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Counts from now on."""
    counted = Looks()

    def count_all(index: NodeIndex, request: PlacementRequest) -> Placement | None:
        counted.at_all += 1
        return search(index, request)

    def count_few(index: NodeIndex, request: PlacementRequest, node_ids: dict[str, None]) -> Placement | None:
        counted.at_few += 1
        return search_among(index, request, node_ids)

    monkeypatch.setattr(placing, "search", count_all)
    monkeypatch.setattr(placing, "search_among", count_few)
    return counted


def test_freed_node_is_looked_at_by_those_alone_that_could_have_it(looks: Looks) -> None:
    crowd = Crowd()
    crowd.join("a", slots=2, memory=4)
    first = crowd.launch(memory=1)
    crowd.launch(memory=3)
    crowd.launch_many(5, "large", memory=4)
    fits = crowd.launch_many(2, "small", memory=1)
    looks.take()
    assert crowd.finish(first) == [fits[0]]
    assert looks.take() == (0, 1)


def test_run_of_the_same_shape_and_another_share_looks_for_itself(looks: Looks) -> None:
    crowd = Crowd()
    crowd.join("a")
    crowd.launch_many(3, "shop")
    looks.take()
    crowd.launch("bakery")
    assert looks.take() == (1, 0)


@pytest.mark.parametrize("nodes", [1, MAX_FREED_TRIED, MAX_FREED_TRIED + 1, 3 * MAX_FREED_TRIED])
def test_however_many_nodes_open_at_once_nothing_is_overlooked(nodes: int) -> None:
    crowd = Crowd()
    names = [f"node-{number}" for number in range(nodes)]
    for name in names:
        crowd.join(name)
        crowd.trial.step(lambda fleet, at: on_cordon(fleet, at, name))  # noqa: B023
    waiting = crowd.launch_many(nodes)

    def open_all(fleet: Fleet, at: Instant) -> None:
        for name in names:
            fleet.save_node(replace(fleet.nodes[name], service=Open()))
        place_waiting(fleet, at)

    crowd.trial.step(open_all)
    assert not [run_id for run_id in waiting if crowd.waits(run_id)]


def test_run_behind_one_that_was_stopped_is_let_into_the_next_cluster_in_its_own_time() -> None:
    crowd = Crowd(SchedulingConfig(rules=(SPILLS,)))
    crowd.join("w", cluster="west")
    crowd.join("e", cluster="east")
    crowd.launch_many(2)
    crowd.wait(60.0)
    old = crowd.launch()
    crowd.wait(40.0)
    young = crowd.launch()
    crowd.wait(20.0)
    assert crowd.waits(old), "both clusters are open to it, and full"
    crowd.trial.terminate(old)
    crowd.finish("shop-0002")
    assert crowd.waits(young), "east is not open to it"
    crowd.wait(36.0)
    assert crowd.waits(young)
    crowd.wait(4.0)
    assert crowd.node_of(young) == "e"


def test_quota_is_of_each_resource_and_a_smaller_run_of_the_share_may_pass() -> None:
    crowd = Crowd(SchedulingConfig(quotas={"shop": Quota(limit=Resources.of({"memory": 4}))}))
    crowd.join("a", slots=5, memory=10)
    crowd.launch(memory=3)
    large, small = crowd.launch(memory=2), crowd.launch(memory=1)
    assert (crowd.waits(large), crowd.waits(small)) == (True, False)
    assert crowd.news(large).startswith("waiting: quota of shop: ")


def test_run_behind_one_that_still_fits_nowhere_goes_when_the_rules_let_both() -> None:
    crowd = Crowd(SchedulingConfig(on_no_matching_rule=NoRuleAction.QUEUE))
    crowd.join("a", slots=4, memory=4)
    crowd.decide(SchedulingConfig())
    crowd.launch(memory=2)
    crowd.decide(SchedulingConfig(on_no_matching_rule=NoRuleAction.QUEUE))
    sizes = {memory: crowd.launch(memory=memory) for memory in (4, 2, 3, 1)}
    assert all(crowd.waits(run_id) for run_id in sizes.values())
    crowd.decide(SchedulingConfig())
    assert [memory for memory, run_id in sizes.items() if not crowd.waits(run_id)] == [2]


def test_run_that_no_node_could_take_waits_where_the_operator_says_so() -> None:
    crowd = Crowd(SchedulingConfig(on_no_eligible_node=NoNodeAction.QUEUE))
    crowd.join("a", memory=4)
    large = crowd.launch(memory=9)
    assert crowd.news(large) == "waiting: 0/1 nodes available: 1 with too little memory in total"
    crowd.join("b", memory=9)
    assert crowd.node_of(large) == "b"


def test_crash_gives_back_nothing_that_runs_still_have() -> None:
    crowd = Crowd()
    crowd.join("a", slots=2, memory=4)
    crowd.launch(memory=3)
    waiting = crowd.launch(memory=2)
    crowd.trial.restart()
    crowd.trial.join(make_hello("a", slots=2, resources={"memory": 4}))
    assert crowd.waits(waiting)
    crowd.trial.launch(make_launch("small"))
    assert crowd.node_of("small") == "a"
