"""Large runs are not kept out for ever by small ones."""

import pytest
from coordinator.scheduling.queue.crowd import Crowd

from runyard.coordinator.core.events.on_operator import on_cordon
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.scheduling.config import QueueConfig, Quota, SchedulingConfig
from runyard.coordinator.core.scheduling.reservations import MAX_RESERVATIONS

QUEUE = QueueConfig(age_step=None, reserve_after=60.0, reservation=300.0)


def busy(nodes: int = 2, config: SchedulingConfig | None = None) -> Crowd:
    """Nodes with four slots and four units of memory each, full of small runs, and more of these waiting."""
    crowd = Crowd(config or SchedulingConfig(queue=QUEUE))
    for number in range(nodes):
        crowd.join(f"node-{number}", slots=4, memory=4)
    crowd.launch_many(4 * nodes, "small", memory=1)
    return crowd


def overtake(crowd: Crowd) -> None:
    """A small run comes, and is placed at once."""
    node_id = crowd.live()[0].place
    assert node_id is not None
    crowd.launch("small", memory=1)
    crowd.finish(oldest_on(crowd, node_id.node))


def oldest_on(crowd: Crowd, node_id: str) -> str:
    return min(run.run_id for run in crowd.live() if run.place and run.place.node == node_id)


def stream(crowd: Crowd, seconds: float) -> None:
    """Small runs end and small runs come, every four seconds one on each node."""
    nodes = list(crowd.trial.fleet.nodes)
    while seconds > 0:
        for node_id in nodes:
            if any(run.place and run.place.node == node_id for run in crowd.live()):
                crowd.finish(oldest_on(crowd, node_id))
            crowd.launch("small", memory=1)
        crowd.wait(4.0)
        seconds -= 4.0


@pytest.mark.parametrize("backlog", [0, 40])
def test_large_run_in_a_stream_of_small_ones_is_placed_soon_after_its_patience_ends(backlog: int) -> None:
    crowd = busy()
    large = crowd.launch("large", memory=4)
    crowd.launch_many(backlog, "small", memory=1)
    stream(crowd, 60.0)
    assert crowd.waits(large)
    assert crowd.reserved() == {"node-0": large}
    stream(crowd, 20.0)
    assert crowd.node_of(large) == "node-0"
    assert crowd.reserved() == {}


def waiting_large(crowd: Crowd) -> str:
    """A large run that others have overtaken; its patience is at an end."""
    large = crowd.launch("large", memory=4)
    overtake(crowd)
    crowd.wait(60.0)
    return large


def test_reserved_node_takes_no_other_run_and_says_so() -> None:
    crowd = busy(nodes=1)
    large = waiting_large(crowd)
    assert crowd.reserved() == {"node-0": large}
    assert crowd.finish(oldest_on(crowd, "node-0")) == []
    small = crowd.launch("small", memory=1)
    assert crowd.news(small) == "waiting: 0/1 nodes available: 1 reserved for a larger run"
    assert crowd.news(large) == "waiting: 0/1 nodes available: 1 insufficient memory"


@pytest.mark.parametrize(("priority", "may"), [(1, True), (0, False), (-1, False)])
def test_only_what_is_more_urgent_may_have_the_reserved_node(priority: int, may: bool) -> None:
    crowd = busy(nodes=1)
    waiting_large(crowd)
    crowd.finish(oldest_on(crowd, "node-0"))
    run_id = crowd.launch("late", memory=1, priority=priority)
    assert crowd.waits(run_id) is not may


def test_equal_runs_that_are_served_in_turn_need_no_reservation() -> None:
    crowd = busy(nodes=1)
    crowd.launch_many(40, "small", memory=1)
    for _ in range(10):
        crowd.wait(70.0)
        assert crowd.reserved() == {}
        crowd.finish(oldest_on(crowd, "node-0"))


def test_nothing_is_reserved_while_nobody_is_overtaken() -> None:
    crowd = busy(nodes=2)
    crowd.launch("large", memory=4)
    crowd.launch_many(5, "small", memory=1)
    crowd.wait(600.0)
    assert crowd.reserved() == {}


@pytest.mark.parametrize("event", ["stopped", "node gone", "node cordoned", "new rules"])
def test_reservation_ends_and_the_node_is_open_again_when(event: str) -> None:
    crowd = busy(nodes=1)
    large = waiting_large(crowd)
    assert crowd.reserved() == {"node-0": large}
    crowd.finish(oldest_on(crowd, "node-0"))
    small = crowd.launch("small", memory=1)
    assert crowd.waits(small)
    match event:
        case "stopped":
            crowd.trial.terminate(large)
        case "node gone":
            crowd.leave("node-0")
        case "node cordoned":
            crowd.trial.step(lambda fleet, at: on_cordon(fleet, at, "node-0"))
        case _:
            crowd.decide(SchedulingConfig())
    assert crowd.reserved() == {}
    assert crowd.waits(small) is (event in ("node gone", "node cordoned"))


def test_reservation_in_vain_moves_to_another_node() -> None:
    crowd = busy(nodes=2)
    large = waiting_large(crowd)
    seen = [crowd.reserved()]
    for _ in range(2):
        crowd.wait(300.0)
        seen.append(crowd.reserved())
    assert seen == [{"node-0": large}, {"node-1": large}, {"node-0": large}]


def test_node_that_lacks_least_is_reserved() -> None:
    crowd = Crowd(SchedulingConfig(queue=QUEUE))
    crowd.join("a", slots=4, memory=8)
    crowd.join("b", slots=4, memory=8)
    crowd.launch(memory=7, node="a")
    crowd.launch(memory=5, node="b")
    large = crowd.launch("large", memory=8)
    crowd.wait(4.0)
    crowd.launch(memory=1)
    crowd.wait(60.0)
    assert crowd.reserved() == {"b": large}


def test_few_nodes_are_reserved_at_a_time_for_those_who_come_first() -> None:
    crowd = busy(nodes=MAX_RESERVATIONS + 3)
    large = [crowd.launch(f"large{number}", memory=4) for number in range(MAX_RESERVATIONS + 2)]
    overtake(crowd)
    crowd.wait(64.0)
    assert sorted(crowd.reserved().values()) == large[:MAX_RESERVATIONS]
    crowd.trial.terminate(large[0])
    crowd.wait(4.0)
    assert sorted(crowd.reserved().values()) == large[1 : MAX_RESERVATIONS + 1]


def test_nothing_is_reserved_for_what_waits_for_other_things_than_room() -> None:
    most = Quota(limit=Resources.of({"memory": 2}))
    crowd = busy(config=SchedulingConfig(queue=QUEUE, quotas={"capped": most}))
    crowd.launch("capped", memory=4)
    crowd.launch("gone", node="node-1", memory=4)
    overtake(crowd)
    crowd.leave("node-1")
    crowd.wait(70.0)
    assert crowd.reserved() == {}


def test_run_with_a_reserved_node_takes_another_that_comes_before() -> None:
    crowd = busy(nodes=2)
    large = waiting_large(crowd)
    assert crowd.reserved() == {"node-0": large}
    crowd.join("node-9", slots=4, memory=4)
    assert crowd.node_of(large) == "node-9"
    assert crowd.reserved() == {}
