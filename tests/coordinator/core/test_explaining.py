"""What people are told of where runs go, by the real core without sockets."""

import pytest
from coordinator.cases.building import (
    PLAIN,
    ZONES,
    Asked,
    InMemoryCluster,
    asked,
    job,
    labelled,
    node,
    op,
    tags,
)
from coordinator.fleet_building import make_hello, running, warm_server

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.on_config_change import on_config_change
from runyard.coordinator.core.explain.explanation import explain_launch, explain_run
from runyard.coordinator.routing_config.reading import read_routing
from runyard.v1 import placement_pb2

DRY_RUN = "00000000-0000-0000-0000-000000000000"
SPILL = "rules: [{name: all, clusters: [main, annex], spill_after: 30s, set: {cpu: 1}}]"


def told(cluster: InMemoryCluster, run_id: str) -> placement_pb2.Explanation:
    trial = cluster.trial
    before = trial.run(run_id)
    explanation = trial.step(lambda fleet, at: explain_run(fleet, at, before))
    trial.asked.clear()
    assert trial.run(run_id) == before
    return explanation


def prospect(cluster: InMemoryCluster, run: Asked) -> placement_pb2.Explanation:
    launch = run.launch(DRY_RUN)
    cluster.trial.asked.clear()
    explanation = cluster.trial.step(lambda fleet, at: explain_launch(fleet, at, launch))
    cluster.trial.asked.assert_nothing_else()
    assert DRY_RUN not in cluster.trial.fleet.runs
    return explanation


def fields(explanation: placement_pb2.Explanation) -> dict[str, tuple[str, str, list[str]]]:
    return {each.name: (each.value, each.source, list(each.overridden)) for each in explanation.fields}


def reasons(explanation: placement_pb2.Explanation) -> dict[str, int]:
    return {each.reason: each.nodes for each in explanation.filters}


def rules(cluster: InMemoryCluster, text: str) -> None:
    config = read_routing(text.encode()).config
    cluster.trial.step(lambda fleet, at: on_config_change(fleet, at, config))


# A run that waits


@pytest.fixture
def spilling() -> tuple[InMemoryCluster, str]:
    """A run that waits for its second cluster, behind one of another priority."""
    cluster = InMemoryCluster(
        [node("m", "main", slots=1, cpu=4), node("x", "annex", cpu=4), node("far", "far", cpu=4)], SPILL
    )
    cluster.launch(asked(cluster="main"))
    cluster.launch(Asked(tags={**tags(node="m"), "dagster/priority": "7"}))
    run_id = cluster.launch(Asked(job(op("train", cpu="3")), tags(cpu="2"), context={"cpu": 1}))
    cluster.wait(10)
    return cluster, run_id


def test_a_run_that_waits_says_for_what_and_since_which_rule(spilling: tuple[InMemoryCluster, str]) -> None:
    cluster, run_id = spilling
    explanation = told(cluster, run_id)
    assert explanation.verdict == (
        f"run {run_id} is waiting: 0/3 nodes available: "
        "1 in a cluster not open yet, 1 in another cluster, 1 without a free slot"
    )
    assert explanation.rule == "all"
    assert reasons(explanation) == {
        "without a free slot": 1,
        "in a cluster not open yet": 1,
        "in another cluster": 1,
    }
    assert explanation.waits_for == "a slot on one node or cluster annex, which opens in 20 s"
    assert not explanation.nodes


def test_a_run_that_waits_says_what_its_clusters_are_like(spilling: tuple[InMemoryCluster, str]) -> None:
    cluster, run_id = spilling
    clusters = [
        (each.name, each.closed, each.utilization, each.nodes_ready)
        for each in told(cluster, run_id).clusters
    ]
    assert clusters == [("main", "", 1.0, 1), ("annex", "opens in 20 s", 0.0, 1)]


def test_a_run_that_waits_knows_its_place_in_the_queue(spilling: tuple[InMemoryCluster, str]) -> None:
    cluster, run_id = spilling
    explanation = told(cluster, run_id)
    assert (explanation.queue_position, explanation.queue_length) == (2, 2)
    assert (explanation.priority, explanation.effective_priority, explanation.share) == (0, 0, "shop")
    cluster.wait(20)
    cluster.wait(650)
    assert cluster.node_of(run_id) == "x"


def test_waiting_raises_the_priority_that_is_told() -> None:
    cluster = InMemoryCluster([node("a", slots=1)], "queue: {age_step: 10s}")
    cluster.launch(Asked())
    run_id = cluster.launch(Asked())
    cluster.wait(25)
    explanation = told(cluster, run_id)
    assert (explanation.priority, explanation.effective_priority) == (0, 2)


def test_each_field_names_the_layer_that_said_it_and_what_it_overrode(
    spilling: tuple[InMemoryCluster, str],
) -> None:
    cluster, run_id = spilling
    assert fields(told(cluster, run_id)) == {
        "resources.cpu": (
            "2",
            "run tags",
            ["3 (op train)", "1 (code location shop)", "1 (rule all)"],
        )
    }


# A run that has a node, or is over


def test_a_placed_run_says_why_it_is_there() -> None:
    cluster = InMemoryCluster(ZONES)
    run_id = cluster.launch(asked(labels="zone=b"))
    explanation = told(cluster, run_id)
    assert explanation.verdict == f"run {run_id} was given to node b of cluster main: the only free node"
    assert fields(explanation) == {"labels.zone": ("zone=b", "run tags", [])}
    assert not explanation.filters
    assert not explanation.queue_position
    cluster.wait(4)
    assert told(cluster, run_id).verdict.startswith(f"run {run_id} runs on node b")


def test_a_run_on_a_silent_node_says_so() -> None:
    cluster = InMemoryCluster([node("a")])
    run_id = cluster.launch(Asked())
    cluster.trial.leave(1, "a")
    assert told(cluster, run_id).verdict.endswith("; the node is silent")


def test_a_finished_run_says_how_it_ended_and_why_it_had_been_there() -> None:
    cluster = InMemoryCluster([node("a"), node("b")])
    run_id = cluster.launch(Asked())
    cluster.end(run_id)
    assert told(cluster, run_id).verdict == (
        f"run {run_id} is over: exited with code 0; it was on node a of cluster main: "
        "best of 2 free nodes by bin-packing"
    )


def test_a_run_that_ended_in_the_queue_never_had_a_node() -> None:
    cluster = InMemoryCluster([node("a", slots=1)])
    cluster.launch(Asked())
    run_id = cluster.launch(Asked())
    cluster.trial.terminate(run_id, "nobody wants it")
    assert told(cluster, run_id).verdict == f"run {run_id} is over, and never had a node: nobody wants it"


def test_a_run_that_was_placed_under_other_rules_says_what_it_asked_for_then() -> None:
    cluster = InMemoryCluster(ZONES, "rules: [{name: old, set: {labels: {zone: b}, cpu: 0}}]")
    run_id = cluster.launch(asked(prefer="disk=ssd", tolerations="spot"))
    rules(cluster, "rules: [{name: new, set: {labels: {zone: a}}}]")
    explanation = told(cluster, run_id)
    assert explanation.rule == "old"
    then = "when it was placed"
    assert fields(explanation) == {
        "labels.zone": ("zone=b", then, []),
        "tolerations": ("spot", then, []),
        "prefer": ("disk=ssd", then, []),
    }


# A launch that is only thought of


def test_a_dry_run_says_where_it_would_go_and_changes_nothing() -> None:
    cluster = InMemoryCluster([labelled("a", zone="a"), labelled("b", zone="b"), labelled("c", zone="b")])
    explanation = prospect(cluster, asked(labels="zone=b", prefer="zone=a"))
    assert explanation.verdict == (
        "such a run would go to node b of cluster main: best of 2 free nodes by bin-packing"
    )
    assert [(each.node, each.cluster) for each in explanation.nodes] == [("b", "main"), ("c", "main")]
    best = explanation.nodes[0]
    assert best.marks["preferences"] == 0.0
    assert {"clean", "warm", "spares", "binpack"} < set(best.marks)
    assert reasons(explanation) == {"did not match label zone=b": 1}
    assert not explanation.waits_for
    assert cluster.launch(asked(labels="zone=b", prefer="zone=a"))
    assert prospect(cluster, Asked(PLAIN)).nodes[0].node == "b"


def test_nodes_that_are_warm_for_the_run_come_first_with_their_mark() -> None:
    cluster = InMemoryCluster([node("a"), node("b"), node("c", slots=2)])
    cluster.trial.warm_up(2, warm_server("shop"), node_id="b")
    explanation = prospect(cluster, Asked())
    assert [(each.node, each.marks["warm"]) for each in explanation.nodes] == [
        ("b", 1.0),
        ("c", 0.0),
        ("a", 0.0),
    ]
    run_id = cluster.launch(Asked())
    because = "best of 3 free nodes by bin-packing; warm for shop"
    assert told(cluster, run_id).verdict == f"run {run_id} was given to node b of cluster main: {because}"


def test_a_dry_run_goes_where_a_real_one_then_goes() -> None:
    cluster = InMemoryCluster([node("a", cpu=4), node("b", cpu=8), node("c", "annex", cpu=2)], SPILL)
    for run in (asked(cpu="3"), asked(cpu="3"), asked(cpu="5"), asked(cluster="annex"), asked(cpu="1")):
        explanation = prospect(cluster, run)
        run_id = cluster.launch(run)
        assert cluster.node_of(run_id) == (explanation.nodes[0].node if explanation.nodes else "")
        waits = "such a run would wait for" in explanation.verdict
        assert waits == (not cluster.node_of(run_id)), explanation.verdict


def test_a_dry_run_that_would_wait_says_for_what() -> None:
    cluster = InMemoryCluster([node("a", slots=1)])
    cluster.launch(Asked())
    explanation = prospect(cluster, Asked())
    assert (
        explanation.verdict
        == "such a run would wait for a slot on one node (0/1 nodes available: 1 without a free slot)"
    )
    assert (explanation.queue_position, explanation.queue_length) == (0, 0)


def test_a_dry_run_that_would_be_refused_is_an_answer() -> None:
    cluster = InMemoryCluster([node("a", cpu=4), node("b", cpu=8)])
    explanation = prospect(cluster, asked(cpu="9", prefer="zone=a"))
    assert explanation.verdict == (
        "such a run would be refused: no node matches (0/2 nodes available: 2 with too little cpu in total)"
    )
    assert reasons(explanation) == {"with too little cpu in total": 2}
    assert fields(explanation)["resources.cpu"] == ("9", "run tags", [])
    assert not explanation.waits_for


def test_a_dry_run_that_no_rule_takes_is_an_answer() -> None:
    cluster = InMemoryCluster(
        [node("a")], "{on_no_matching_rule: fail, rules: [{name: pay, match: {job: pay}}]}"
    )
    explanation = prospect(cluster, asked(cpu="1"))
    assert explanation.verdict.startswith("such a run would be refused: no routing rule matches job 'orders'")
    assert fields(explanation) == {"resources.cpu": ("1", "run tags", [])}


def test_a_dry_run_into_a_full_queue_is_an_answer() -> None:
    cluster = InMemoryCluster([node("a", slots=1)], "queue: {limit: 1}")
    cluster.launch(Asked())
    cluster.launch(Asked())
    assert "would be refused: 1 runs are waiting" in prospect(cluster, Asked()).verdict


def test_a_launch_whose_tags_make_no_sense_is_no_launch() -> None:
    with pytest.raises(InvalidField, match="runyard/cpu"):
        prospect(InMemoryCluster([node("a")]), asked(cpu="many"))


def test_an_adopted_run_says_only_what_is_known() -> None:
    cluster = InMemoryCluster([])
    run_id = "00000000-0000-4000-8000-000000000009"
    cluster.trial.join(make_hello("a", attempts=[running(run_id)]))
    explanation = told(cluster, run_id)
    assert explanation.verdict == f"run {run_id} runs on node a of cluster default"
    assert not explanation.fields
