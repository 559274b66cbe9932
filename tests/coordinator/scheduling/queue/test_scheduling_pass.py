"""Whose turn it is: priority, fair shares, age, quotas, and what wakes the queue."""

from collections import Counter

import pytest
from coordinator.fleet_building import FleetTrial, finished, make_hello, make_launch, running
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.coordinator.core.errors import FleetError
from runyard.coordinator.core.events import place_waiting
from runyard.coordinator.core.events.on_config_change import on_config_change
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.model import Run
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.rules import Match, Rule, WeightedCluster
from runyard.coordinator.core.scheduling.config import QueueConfig, Quota, SchedulingConfig
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.node_search import Placement, PlacementRequest, search
from runyard.coordinator.core.scheduling.scheduling_pass import SchedulingPass


class Line(FleetTrial):
    """A fleet whose sessions are kept, for runs that come and go."""

    def __init__(self, slots: int = 1, config: SchedulingConfig | None = None, **resources: int) -> None:
        super().__init__(config=config or SchedulingConfig())
        self.sessions: dict[str, int] = {}
        self.node("node-a", slots, "default", **resources)

    def node(self, node_id: str, slots: int = 1, cluster: str = "default", **resources: int) -> None:
        """Another node joins."""
        hello = make_hello(node_id, cluster=cluster, slots=slots, resources=resources)
        self.sessions[node_id] = self.join(hello)

    def wants(
        self, run_id: str, share: str = "shop", priority: int = 0, *, cluster: str = "", **amounts: int
    ) -> None:
        """A run is launched."""
        requirements = CompiledRequirements(cluster=cluster, resources=Resources.of({"slots": 1, **amounts}))
        self.launch(make_launch(run_id, requirements=requirements, location=share, priority=priority))

    def live(self) -> list[Run]:
        """The runs with a node, in the order in which they got it."""
        runs = [run for run in self.fleet.runs.values() if run.is_live]
        return sorted(runs, key=lambda run: run.times.assigned or 0.0)

    def names(self) -> list[str]:
        """The IDs of the runs with a node."""
        return sorted(run.run_id for run in self.live())

    def end(self, run_id: str) -> None:
        """A run ends."""
        run = self.fleet.runs[run_id]
        assert run.place is not None
        node_id = run.place.node
        self.report(self.sessions[node_id], finished(run_id, run.attempt), node_id)

    def end_oldest(self) -> None:
        """The run that has had its node for the longest ends, a moment later."""
        self.later(1.0)
        self.end(self.live()[0].run_id)

    def later(self, seconds: float) -> None:
        """Time passes; every node is heard of."""
        while seconds > 0:
            for node_id, session in self.sessions.items():
                told = [running(run.run_id, run.attempt) for run in self.fleet.live_on(node_id)]
                self.beat(session, *told, node_id=node_id)
            self.tick(min(seconds, 4.0))
            seconds -= 4.0

    def why(self, run_id: str) -> str:
        """What is said of a waiting run."""
        return situation(self.fleet, self.fleet.runs[run_id])


def with_queue(**queue: float | str | None) -> SchedulingConfig:
    return SchedulingConfig(queue=QueueConfig(**queue))  # type: ignore[arg-type]


# Priority and age


def test_higher_priority_goes_first() -> None:
    line = Line()
    for name, priority in (("busy", 0), ("low", -1), ("middle", 0), ("high", 2)):
        line.wants(name, priority=priority)
    order = []
    for _ in range(3):
        line.end_oldest()
        order += line.names()
    assert order == ["high", "middle", "low"]


def test_equals_go_in_the_order_of_their_coming() -> None:
    line = Line()
    for number in range(6):
        line.wants(f"run-{number}")
    for number in range(1, 6):
        line.end_oldest()
        assert line.names() == [f"run-{number}"]


def test_what_waits_long_rises_above_higher_priorities_that_keep_coming() -> None:
    line = Line(config=with_queue(age_step=60.0))
    line.wants("busy", priority=3)
    line.wants("patient", priority=0)
    for number in range(100):
        line.wants(f"urgent-{number}", priority=3)
        line.later(10.0)
        line.end_oldest()
        if line.names() == ["patient"]:
            break
    assert 15 <= number <= 30  # above priority 3 after four steps of a minute


def test_without_ageing_higher_priorities_always_go_first() -> None:
    line = Line(config=with_queue(age_step=None))
    line.wants("busy", priority=1)
    line.wants("patient", priority=0)
    for number in range(50):
        line.wants(f"urgent-{number}", priority=1)
        line.later(60.0)
        line.end_oldest()
        assert line.names() != ["patient"]


# Fair shares


@settings(deadline=None, max_examples=25)
@given(
    shares=st.integers(2, 5),
    slots=st.integers(1, 4),
    rounds=st.integers(20, 60),
    first=st.lists(st.integers(1, 8), min_size=5, max_size=5),
)
def test_shares_of_equal_demand_get_equally_much(
    shares: int, slots: int, rounds: int, first: list[int]
) -> None:
    line = Line(slots)
    names = [f"share-{number}" for number in range(shares)]
    for share, depth in zip(names, first, strict=False):
        for number in range(depth):
            line.wants(f"{share}_{number}", share)
    given_to: Counter[str] = Counter()
    for turn in range(rounds):
        for share in names:
            line.wants(f"{share}_more-{turn}", share)
        before = set(line.names())
        line.end_oldest()
        given_to.update(run_id.partition("_")[0] for run_id in set(line.names()) - before)
    assert max(given_to.values()) - min(given_to[share] for share in names) <= slots + 1


def test_a_share_with_a_long_queue_does_not_keep_out_one_with_a_short() -> None:
    line = Line()
    line.wants("busy", "hoarder")
    for number in range(50):
        line.wants(f"hoard-{number}", "hoarder")
    line.wants("newcomer", "modest")
    line.end_oldest()
    line.end_oldest()
    assert line.names() == ["newcomer"]


def test_larger_runs_count_for_more() -> None:
    line = Line(slots=8, cpu=8)
    for number in range(40):
        line.wants(f"large-{number:02}", "large", cpu=4)
        line.wants(f"small-{number:02}", "small", cpu=1)
    cores: Counter[str] = Counter()
    for _ in range(30):
        before = set(line.names())
        line.end_oldest()
        for run_id in set(line.names()) - before:
            share = run_id.partition("-")[0]
            cores[share] += 4 if share == "large" else 1
    assert abs(cores["large"] - cores["small"]) <= 8


def test_a_share_that_was_away_has_neither_debt_nor_credit() -> None:
    line = Line()
    line.wants("busy", "always")
    for number in range(30):
        line.wants(f"always-{number:02}", "always")
        if number < 20:
            line.end_oldest()
    for number in range(10):
        line.wants(f"back-{number}", "back")
    turns = []
    for _ in range(8):
        line.end_oldest()
        turns += [name.partition("-")[0] for name in line.names()]
    assert Counter(turns) == {"always": 4, "back": 4}


# Quotas


def test_a_share_below_what_it_is_promised_goes_before_higher_priorities() -> None:
    promised = {"shop": Quota(guaranteed=Resources.of({"slots": 1}))}
    line = Line(slots=2, config=SchedulingConfig(quotas=promised))
    line.wants("busy-1", "other")
    line.wants("busy-2", "other")
    line.wants("urgent", "other", priority=9)
    line.wants("promised-1", "shop")
    line.wants("promised-2", "shop")
    line.end("busy-1")
    assert line.names() == ["busy-2", "promised-1"]
    line.end("busy-2")
    assert line.names() == ["promised-1", "urgent"], "it has what it was promised"


def test_a_share_never_gets_more_than_its_quota_and_others_pass_it() -> None:
    bounded = {"shop": Quota(limit=Resources.of({"slots": 2}))}
    line = Line(slots=4, config=SchedulingConfig(quotas=bounded))
    for number in range(4):
        line.wants(f"shop-{number}", "shop")
    line.wants("other", "market")
    assert line.names() == ["other", "shop-0", "shop-1"]
    assert line.why("shop-2") == "waiting: quota of shop: 2 of 2 slots"
    line.end("shop-0")
    assert line.names() == ["other", "shop-1", "shop-2"]


def test_a_quota_that_is_lifted_lets_its_share_go_on() -> None:
    bounded = {"shop": Quota(limit=Resources.of({"slots": 1}))}
    line = Line(slots=4, config=SchedulingConfig(quotas=bounded))
    for number in range(3):
        line.wants(f"shop-{number}", "shop")
    line.step(lambda fleet, at: on_config_change(fleet, at, SchedulingConfig()))
    assert line.names() == ["shop-0", "shop-1", "shop-2"]


@pytest.mark.parametrize(
    ("queue", "says"),
    [
        ({"limit": 2}, "2 runs are waiting, as many as the queue takes (limit 2)"),
        (
            {"limit_per_share": 2},
            "2 runs of shop are waiting, as many as the queue takes (limit_per_share 2)",
        ),
    ],
)
def test_a_full_queue_refuses_with_the_limit_and_forgets_nothing(queue: dict[str, int], says: str) -> None:
    line = Line(config=with_queue(**queue))
    for number in range(3):
        line.wants(f"run-{number}")
    with pytest.raises(FleetError) as refusal:
        line.wants("one too many")
    assert says in str(refusal.value)
    line.end_oldest()
    line.wants("one that fits again")
    assert len(line.fleet.queue) == 2


# What wakes the queue


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs for which all nodes were looked at."""
    seen: list[str] = []

    def noted(index: NodeIndex, request: PlacementRequest) -> Placement | None:
        seen.append(request.context.run_id)
        return search(index, request)

    monkeypatch.setattr(place_waiting, "search", noted)
    return seen


def test_runs_like_one_that_waits_are_queued_without_a_look_at_any_node(searches: list[str]) -> None:
    line = Line()
    for number in range(20):
        line.wants(f"run-{number}")
    assert searches == ["run-0", "run-1"]


def test_heartbeats_and_time_that_change_nothing_cost_no_look_at_any_node(
    searches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line()
    for number in range(5):
        line.wants(f"run-{number}")
    searches.clear()
    monkeypatch.setattr(SchedulingPass, "_enter", _must_not_be_called)
    line.later(20.0)
    assert searches == []


def _must_not_be_called(*_: object) -> None:
    raise AssertionError("a band was looked at")


def test_the_end_of_a_run_is_offered_only_to_those_that_could_use_it(searches: list[str]) -> None:
    line = Line(slots=2, cpu=8)
    line.node("node-b", slots=1, cluster="annex", cpu=8)
    line.wants("busy-1", cpu=4)
    line.wants("busy-2", cpu=4)
    line.wants("busy-3", cluster="annex", cpu=1)
    line.wants("too large", cpu=8)
    line.wants("elsewhere", cluster="annex", cpu=1)
    line.wants("fits", cpu=2)
    searches.clear()
    line.end("busy-1")
    assert line.names() == ["busy-2", "busy-3", "fits"]
    assert searches == []


def test_a_run_spills_into_the_next_cluster_when_its_time_has_come() -> None:
    clusters = (WeightedCluster("default"), WeightedCluster("annex"))
    rule = Rule("spill", Match(), clusters, spill_after=30.0)
    line = Line(config=SchedulingConfig(rules=(rule,)))
    line.node("node-b", cluster="annex")
    line.wants("first")
    line.wants("second")
    assert line.names() == ["first"]
    line.later(28.0)
    assert line.names() == ["first"]
    line.later(4.0)
    assert line.names() == ["first", "second"]
    place = line.fleet.runs["second"].place
    assert place is not None
    assert (place.node, "spill" in place.because) == ("node-b", True)
