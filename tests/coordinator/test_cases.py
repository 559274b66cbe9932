"""Placement, case by case: requirements, their source, the fleet, and the result.

Each case is a sentence. Its job is a real Dagster job whose snapshot the coordinator reads; its rules are the
text of a routing file; its nodes have joined the real core. The tables are in `cases`.
"""

import pytest
from coordinator.cases.building import PLAIN, Case, InMemoryCluster, asked, node
from coordinator.cases.nodes import AMOUNTS, CHOICES, LABELS
from coordinator.cases.requirements import LAYERS, MISTAKES, OPS
from coordinator.cases.routing import QUOTAS, ROUTES, TURNS, Turn

from runyard.coordinator.core.errors import FleetError

CASES = (*LAYERS, *OPS, *MISTAKES, *LABELS, *AMOUNTS, *CHOICES, *ROUTES, *QUOTAS)


@pytest.mark.parametrize("case", CASES, ids=[case.says for case in CASES])
def test_a_run_goes_where_the_sentence_says(case: Case) -> None:
    assert [bool(end) for end in (case.goes, case.waits, case.refused)].count(True) == 1
    cluster = InMemoryCluster(case.fleet, case.rules)
    for earlier in case.busy:
        cluster.launch(earlier)
    if case.refused:
        with pytest.raises(FleetError) as refusal:
            cluster.launch(case.run)
        assert case.refused in str(refusal.value)
        return
    run_id = cluster.launch(case.run)
    cluster.wait(case.after)
    assert cluster.node_of(run_id) == case.goes, cluster.news(run_id)
    assert case.waits in cluster.news(run_id)


@pytest.mark.parametrize("turn", TURNS, ids=[turn.says for turn in TURNS])
def test_a_slot_goes_round_as_the_sentence_says(turn: Turn) -> None:
    cluster = InMemoryCluster([node("a", slots=1)], turn.rules)
    running = cluster.launch(turn.holding)
    waiting = {}
    for name, run in turn.queue.items():
        waiting[cluster.launch(run)] = name
        cluster.wait(10)
    cluster.wait(turn.after - 10)
    order = []
    while waiting:
        cluster.end(running)
        (running,) = (run_id for run_id in waiting if cluster.node_of(run_id))
        order.append(waiting.pop(running))
        cluster.wait(10)
    assert " ".join(order) == turn.order


def test_a_large_run_that_has_waited_is_not_passed_by_small_ones_for_ever() -> None:
    small = asked(cpu="1")
    cluster = InMemoryCluster([node("a", cpu=2)])
    running = [cluster.launch(small), cluster.launch(small)]
    large = cluster.launch(asked(cpu="2"))
    cluster.end(running.pop())
    running.append(cluster.launch(small))
    assert cluster.node_of(running[-1]) == "a", "for a while they pass"
    cluster.wait(90)
    cluster.end(running.pop())
    late = cluster.launch(small)
    assert cluster.news(late) == "waiting: 0/1 nodes available: 1 reserved for a larger run"
    cluster.end(running.pop())
    assert cluster.node_of(large) == "a"
    assert not cluster.node_of(late)


def test_there_are_enough_sentences_and_none_is_said_twice() -> None:
    sentences = [*(case.says for case in CASES), *(turn.says for turn in TURNS)]
    assert len(set(sentences)) == len(sentences) >= 60
    assert PLAIN.name == "orders", "the rules of the cases name it"
