"""Merged requirements of the ops of a run, from real snapshots."""

from itertools import pairwise
from typing import Any

import dagster as dg
import pytest
from coordinator.requirements.jobs import amounts_of, an_op, implicit_job, merged_layer, shape_of

from runyard.common.quantities import LARGEST
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.ops import ops_layer
from runyard.coordinator.core.requirements.requirements import Keep, StopAfter

GI = 1 << 30
ONE_BY_ONE = dg.in_process_executor
SIDE_BY_SIDE = dg.multiprocess_executor


def side_by_side(*ops: dg.OpDefinition) -> dg.JobDefinition:
    """Independent ops."""
    graph = dg.GraphDefinition(name="job", node_defs=list(ops))
    return graph.to_job(executor_def=SIDE_BY_SIDE)


def in_a_row(*ops: dg.OpDefinition, executor: dg.ExecutorDefinition = SIDE_BY_SIDE) -> dg.JobDefinition:
    """A chain of ops with one input each."""
    depends = {later.name: {"i0": dg.DependencyDefinition(earlier.name)} for earlier, later in pairwise(ops)}
    return dg.GraphDefinition(name="job", node_defs=list(ops), dependencies=depends).to_job(
        executor_def=executor
    )


def at_most(count: int) -> dict[str, Any]:
    return {"config": {"max_concurrent": count}}


# How much


def test_steps_one_by_one_take_the_largest_amount_of_each() -> None:
    train, score = (
        an_op("train", cpu="4", memory="8Gi"),
        an_op("score", 1, cpu="1", memory="16Gi", gpu="1"),
    )
    job = in_a_row(train, score, executor=ONE_BY_ONE)
    assert amounts_of(job) == {"cpu": 4000, "memory": 16 * GI, "gpu": 1}


def test_independent_ops_are_added_up() -> None:
    job = side_by_side(an_op("a", memory="1Gi"), an_op("b", memory="2Gi", gpu="1"), an_op("c"))
    assert amounts_of(job) == {"memory": 3 * GI, "gpu": 1}


def test_ops_in_a_row_are_not_added_up() -> None:
    job = in_a_row(an_op("a", memory="1Gi"), an_op("between", 1), an_op("b", 1, memory="2Gi"))
    assert amounts_of(job) == {"memory": 2 * GI}


def test_of_a_diamond_the_two_in_the_middle_count() -> None:
    @dg.job(executor_def=SIDE_BY_SIDE)
    def job() -> None:
        start = an_op("start", memory="5Gi")()
        end = an_op("end", 2, memory="4Gi")
        left, right = an_op("left", 1, memory="3Gi"), an_op("right", 1, memory="4Gi")
        end(i0=left(i0=start), i1=right(i0=start))

    assert amounts_of(job) == {"memory": 7 * GI}


def test_only_as_many_steps_count_as_may_run_at_once() -> None:
    job = side_by_side(*(an_op(f"op{number}", memory=f"{number}Gi") for number in range(1, 6)))
    assert amounts_of(job) == {"memory": 15 * GI}
    assert amounts_of(job, execution=at_most(2)) == {"memory": 9 * GI}
    assert amounts_of(job, execution=at_most(1)) == {"memory": 5 * GI}
    assert amounts_of(job, execution=at_most(10**9)) == {"memory": 15 * GI}


@pytest.mark.parametrize("limit", [0, None, "2", True, -1])
def test_an_invalid_limit_is_ignored(limit: Any) -> None:
    job = side_by_side(an_op("a", memory="1Gi"), an_op("b", memory="2Gi"))
    assert amounts_of(job, execution={"config": {"max_concurrent": limit}}) == {"memory": 3 * GI}


EXECUTIONS: list[tuple[dict[str, Any], int]] = [
    ({}, 3),
    ({"config": {"in_process": {}}}, 2),
    ({"config": {"in_process": None}}, 2),
    ({"config": {"multiprocess": {}}}, 3),
    ({"config": {"multiprocess": {"max_concurrent": 1}}}, 2),
    ({"config": None}, 3),
]


@pytest.mark.parametrize(("execution", "gigabytes"), EXECUTIONS)
def test_the_run_config_decides_on_concurrency_if_the_job_leaves_it_open(
    execution: dict[str, Any], gigabytes: int
) -> None:
    job = dg.GraphDefinition(
        name="job", node_defs=[an_op("a", memory="1Gi"), an_op("b", memory="2Gi")]
    ).to_job()
    assert amounts_of(job, execution=execution) == {"memory": gigabytes * GI}


def test_the_config_of_the_job_is_the_default_of_the_run_config() -> None:
    job = dg.GraphDefinition(
        name="job", node_defs=[an_op("a", memory="1Gi"), an_op("b", memory="2Gi")]
    ).to_job(config={"execution": {"config": {"in_process": {}}}})
    assert amounts_of(job) == {"memory": 2 * GI}
    assert amounts_of(job, execution={"config": {"multiprocess": {}}}) == {"memory": 3 * GI}


def test_an_executor_configured_in_code_counts_as_concurrent() -> None:
    job = dg.GraphDefinition(
        name="job", node_defs=[an_op("a", memory="1Gi"), an_op("b", memory="2Gi")]
    ).to_job(executor_def=dg.multiprocess_executor.configured({"max_concurrent": 1}))
    assert amounts_of(job) == {"memory": 3 * GI}


@dg.job(executor_def=SIDE_BY_SIDE)
def dynamic() -> None:
    @dg.op(out=dg.DynamicOut(), tags={"runyard/memory": "3Gi"})
    def split() -> Any: ...

    @dg.op(tags={"runyard/memory": "2Gi"})
    def work(x: Any) -> Any: ...

    @dg.op(tags={"runyard/memory": "1Gi"})
    def polish(x: Any) -> Any: ...

    @dg.op(tags={"runyard/memory": "4Gi"})
    def gather(x: Any) -> Any: ...

    gather(split().map(lambda item: polish(work(item))).collect())


def test_a_mapped_op_counts_max_concurrent_times() -> None:
    assert amounts_of(dynamic, execution=at_most(5)) == {"memory": 10 * GI}


def test_a_mapped_op_counts_once_without_a_limit() -> None:
    assert amounts_of(dynamic) == {"memory": 4 * GI}


def test_zero_cancels_the_amounts_of_lower_layers() -> None:
    assert amounts_of(side_by_side(an_op("a", gpu="0"))) == {"gpu": 0}
    assert amounts_of(side_by_side(an_op("a", gpu="0"), an_op("b", gpu="1"))) == {"gpu": 1}


def test_a_sum_beyond_the_maximum_is_the_maximum() -> None:
    job = side_by_side(*(an_op(f"op{number}", memory="900Ti") for number in range(5)))
    assert amounts_of(job) == {"memory": LARGEST}


# Which ops


def test_only_the_steps_that_will_run_count() -> None:
    job = side_by_side(an_op("a", memory="1Gi"), an_op("b", memory="2Gi"), an_op("c", memory="4Gi"))
    assert amounts_of(job, "a", "c") == {"memory": 5 * GI}
    assert merged_layer(job, "elsewhere") is None


def test_steps_that_depend_only_on_a_step_that_will_not_run_again_are_concurrent() -> None:
    job = in_a_row(an_op("a", memory="1Gi"), an_op("b", 1), an_op("c", 1, memory="2Gi"))
    assert amounts_of(job) == {"memory": 2 * GI}
    assert amounts_of(job, "a", "c") == {"memory": 3 * GI}


@pytest.mark.parametrize("key", ["work[a]", "work[?]"])
def test_steps_of_single_items_are_found(key: str) -> None:
    assert amounts_of(dynamic, key) == {"memory": 2 * GI}


def test_steps_inside_graphs_are_found_by_their_path() -> None:
    @dg.graph
    def inner() -> None:
        an_op("train", memory="1Gi")()

    @dg.job
    def job() -> None:
        inner()
        inner.alias("other")()

    assert amounts_of(job, "other.train") == {"memory": GI}


def test_assets_without_run_tags_have_the_requirements_of_their_op_tags() -> None:
    @dg.asset(op_tags={"runyard/memory": "32Gi", "runyard/labels": "disk=ssd"})
    def orders() -> None: ...

    @dg.asset(deps=[orders], op_tags={"runyard/config": {"memory": "2Gi", "labels": {"zone": ["a", "b"]}}})
    def report() -> None: ...

    job = implicit_job(orders, report)
    layer = merged_layer(job)
    assert layer is not None
    assert [str(rule) for rule in layer.labels] == ["disk=ssd", "zone=a|b"]
    assert dict(layer.resources) == {"memory": 32 * GI}
    alone = job.get_subset(asset_selection={dg.AssetKey("report")})
    assert amounts_of(alone) == {"memory": 2 * GI}


def test_a_job_of_some_assets_has_the_requirements_of_these() -> None:
    @dg.asset(op_tags={"runyard/memory": "32Gi"})
    def orders() -> None: ...

    @dg.asset(deps=[orders], op_tags={"runyard/memory": "2Gi"})
    def report() -> None: ...

    chosen = dg.define_asset_job("reports", selection="report")
    job = dg.Definitions(assets=[orders, report], jobs=[chosen]).resolve_job_def("reports")
    assert amounts_of(job) == {"memory": 2 * GI}


def test_ops_without_tags_have_no_requirements() -> None:
    assert merged_layer(side_by_side(an_op("a"), an_op("b"))) is None


# Who said it


@pytest.mark.parametrize(
    ("names", "source"),
    [
        (["a"], "op a"),
        (["a", "b"], "ops a + b"),
        (["a", "b", "c", "d", "e"], "ops a + b + c + 2 more"),
    ],
)
def test_the_layer_names_its_ops(names: list[str], source: str) -> None:
    job = side_by_side(an_op("quiet"), *(an_op(name, cpu="1") for name in names))
    layer = ops_layer(shape_of(job), (), {})
    assert layer is not None
    assert layer.source == source


# Together


def test_an_op_overrides_the_graphs_around_it_also_with_the_dictionary() -> None:
    @dg.op(tags={"runyard/config": {"memory": "8Gi"}})
    def train() -> None: ...

    @dg.graph(tags={"runyard/memory": "4Gi", "runyard/labels": "zone=a,disk=ssd"})
    def inner() -> None:
        train()

    @dg.graph(tags={"runyard/cluster": "main", "runyard/labels": "zone=b"})
    def outer() -> None:
        inner()

    @dg.job
    def job() -> None:
        outer()

    layer = merged_layer(job)
    assert layer is not None
    assert (layer.cluster, dict(layer.resources)) == ("main", {"memory": 8 * GI})
    assert sorted(map(str, layer.labels)) == ["disk=ssd", "zone=a"]


def test_labels_of_all_ops_must_hold() -> None:
    layer = merged_layer(
        side_by_side(an_op("a", labels="zone=a|b,disk=ssd"), an_op("b", labels="zone=b|c,!spot"))
    )
    assert layer is not None
    assert [str(rule) for rule in layer.labels] == ["disk=ssd", "!spot", "zone=b"]


def test_preferences_and_tolerations_are_united() -> None:
    job = side_by_side(
        an_op("a", prefer='{"fast": 2, "cheap": 1}', tolerations="gpu"),
        an_op("b", prefer='{"fast": 5}', tolerations="spot,gpu"),
    )
    layer = merged_layer(job)
    assert layer is not None
    assert {str(wish.label): wish.weight for wish in layer.preferences} == {"fast": 5, "cheap": 1}
    assert set(layer.tolerations) == {"gpu", "spot"}


def test_the_longest_grace_and_otherwise_the_shortest_time_holds() -> None:
    limits = {"max_queue_time": "2h", "start_timeout": "1m", "on_disconnect": "keep"}
    job = side_by_side(
        an_op("a", grace="10", **limits),
        an_op("b", grace="1m", max_queue_time="1h", start_timeout="5m", on_disconnect="stop_after=5m"),
        an_op("c", on_disconnect="stop_after=1h"),
        an_op("d", cpu="1"),
    )
    layer = merged_layer(job)
    assert layer is not None
    assert (layer.grace, layer.max_queue_time, layer.start_timeout) == (60.0, 3600.0, 60.0)
    assert layer.on_disconnect == StopAfter(300.0)
    kept = merged_layer(side_by_side(an_op("a", **limits)))
    assert kept is not None
    assert kept.on_disconnect == Keep()


CONTRADICTIONS = [
    ("cluster", "main", "gpu", "op a wants main, but op b wants gpu"),
    ("node", "n1", "n2", "op a wants n1, but op b wants n2"),
    ("driver", "process", "docker", "op a wants process, but op b wants docker"),
    ("image", "etl:1", "etl:2", "op a wants etl:1, but op b wants etl:2"),
    ("labels", "zone=a,disk=ssd", "zone=b", "op a wants zone=a, but op b wants zone=b"),
    ("labels", "!spot", "spot", "op a wants !spot, but op b wants spot"),
]


@pytest.mark.parametrize(("key", "first", "second", "problem"), CONTRADICTIONS)
def test_ops_that_contradict_each_other_are_named_with_the_tag_and_the_remedy(
    key: str, first: str, second: str, problem: str
) -> None:
    job = side_by_side(an_op("a", **{key: first}), an_op("b", **{key: second}), an_op("c", cpu="1"))
    with pytest.raises(InvalidField) as caught:
        merged_layer(job)
    assert str(caught.value) == (
        f"tag runyard/{key}: {problem}; all steps of a run share one node, so make them agree, "
        "or put the ops into two jobs"
    )


def test_ops_may_agree_on_a_name() -> None:
    layer = merged_layer(
        side_by_side(an_op("a", cluster="gpu"), an_op("b", cluster="gpu"), an_op("c", cpu="1"))
    )
    assert layer is not None
    assert layer.cluster == "gpu"


def test_ops_that_contradict_each_other_only_together_are_all_named() -> None:
    job = side_by_side(
        an_op("a", labels="zone=x|y"), an_op("b", labels="zone=y|z"), an_op("c", labels="zone=x|z")
    )
    with pytest.raises(InvalidField, match=r"ops a and b together want zone=y, but op c wants zone=x\|z"):
        merged_layer(job)


def test_ops_that_will_not_run_contradict_no_other() -> None:
    job = side_by_side(an_op("a", cluster="main"), an_op("b", cluster="gpu"))
    layer = merged_layer(job, "b")
    assert layer is not None
    assert layer.cluster == "gpu"


def test_an_invalid_tag_is_named_with_its_op_or_graph() -> None:
    @dg.graph(tags={"runyard/memroy": "4Gi"})
    def inner() -> None:
        an_op("train", memory="much")()

    @dg.job
    def job() -> None:
        inner()

    with pytest.raises(
        InvalidField, match=r"^tag runyard/memroy of graph inner: .* did you mean runyard/memory"
    ):
        merged_layer(job)
    with pytest.raises(InvalidField, match=r"^tag runyard/memory of op train: 'much' is not an amount"):
        merged_layer(side_by_side(an_op("train", memory="much")))
