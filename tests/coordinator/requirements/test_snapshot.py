"""Parsing of real job snapshots."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from coordinator.requirements.jobs import an_op, implicit_job, shape_of, snapshot_of

from runyard.coordinator.core.requirements import snapshot
from runyard.coordinator.core.requirements.snapshot import JobShape, Steps, job_shape

DATA = Path(__file__).parent / "data"

MEMORY = {"runyard/memory": "4Gi"}


def tags_by_op(shape: JobShape) -> dict[str, list[tuple[str, dict[str, str]]]]:
    return {op.handle: [(level.where, dict(level.tags)) for level in op.levels] for op in shape.ops}


def upstream_by_op(shape: JobShape) -> dict[str, set[str]]:
    return {op.handle: set(op.upstream) for op in shape.ops}


# Ops and their tags


def test_an_op_has_the_runyard_tags_of_its_definition() -> None:
    @dg.op(tags={"runyard/memory": "4Gi", "runyard/config": {"cpu": 2}, "owner": "ann", "dagster/x": "y"})
    def train() -> None: ...

    @dg.job
    def job() -> None:
        train()

    ours = {"runyard/memory": "4Gi", "runyard/config": '{"cpu": 2}'}
    assert tags_by_op(shape_of(job)) == {"train": [("op train", ours)]}


def test_an_op_that_is_used_twice_is_two_ops() -> None:
    train = an_op("train", memory="4Gi")

    @dg.job
    def job() -> None:
        train()
        train.alias("again")()

    assert tags_by_op(shape_of(job)) == {
        "train": [("op train", MEMORY)],
        "again": [("op again", MEMORY)],
    }


def test_tags_of_enclosing_graphs_come_before_those_of_the_op() -> None:
    train = an_op("train", memory="4Gi")

    @dg.graph(tags={"runyard/cluster": "inner"})
    def inner() -> None:
        train()

    @dg.graph
    def mid() -> None:
        inner()

    @dg.graph(tags={"runyard/cluster": "outer"})
    def outer() -> None:
        mid.alias("middle")()

    @dg.job
    def job() -> None:
        outer()

    assert tags_by_op(shape_of(job)) == {
        "outer.middle.inner.train": [
            ("graph outer", {"runyard/cluster": "outer"}),
            ("graph outer.middle.inner", {"runyard/cluster": "inner"}),
            ("op outer.middle.inner.train", MEMORY),
        ]
    }


def test_a_selection_of_ops_leaves_out_the_others() -> None:
    job = dg.JobDefinition(
        graph_def=dg.GraphDefinition(name="g", node_defs=[an_op("a", memory="1Gi"), an_op("b", memory="2Gi")])
    )
    assert list(tags_by_op(shape_of(job.get_subset(op_selection=["b"])))) == ["b"]


# Assets


def test_assets_are_ops_with_the_op_tags() -> None:
    @dg.asset(op_tags=MEMORY, tags={"runyard/cpu": "1"})
    def orders() -> None: ...

    @dg.asset(deps=[orders], key_prefix="shop")
    def report() -> None: ...

    shape = shape_of(implicit_job(orders, report))
    assert tags_by_op(shape) == {"orders": [("op orders", MEMORY)], "shop__report": []}
    assert upstream_by_op(shape) == {"orders": set(), "shop__report": {"orders"}}


def test_a_selection_of_assets_leaves_out_the_others() -> None:
    @dg.asset(op_tags=MEMORY)
    def orders() -> None: ...

    @dg.asset(deps=[orders], op_tags={"runyard/memory": "2Gi"})
    def report() -> None: ...

    chosen = implicit_job(orders, report).get_subset(asset_selection={dg.AssetKey("report")})
    assert tags_by_op(shape_of(chosen)) == {"report": [("op report", {"runyard/memory": "2Gi"})]}
    assert upstream_by_op(shape_of(chosen)) == {"report": set()}


def test_several_assets_of_one_op_are_one_op() -> None:
    @dg.multi_asset(specs=[dg.AssetSpec("x"), dg.AssetSpec("y", deps=["x"])], op_tags=MEMORY, can_subset=True)
    def both() -> tuple[Any, Any]:
        raise NotImplementedError

    job = implicit_job(both)
    assert tags_by_op(shape_of(job)) == {"both": [("op both", MEMORY)]}
    only = job.get_subset(asset_selection={dg.AssetKey("y")})
    assert tags_by_op(shape_of(only)) == {"both": [("op both", MEMORY)]}


def test_a_graph_that_makes_an_asset_is_a_graph() -> None:
    train = an_op("train", memory="4Gi")

    @dg.graph_asset
    def model() -> Any:
        return train()

    assert tags_by_op(shape_of(implicit_job(model))) == {"model.train": [("op model.train", MEMORY)]}


def test_a_partitioned_asset_has_one_snapshot_for_all_partitions() -> None:
    days = dg.DailyPartitionsDefinition("2026-01-01")

    @dg.asset(op_tags=MEMORY, partitions_def=days)
    def orders() -> None: ...

    assert tags_by_op(shape_of(implicit_job(orders))) == {"orders": [("op orders", MEMORY)]}


def test_checks_of_assets_are_ops() -> None:
    @dg.asset(op_tags=MEMORY)
    def orders() -> None: ...

    @dg.asset_check(asset=orders, compute_kind="sql")
    def complete() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    job = dg.Definitions(assets=[orders], asset_checks=[complete]).resolve_implicit_global_asset_job_def()
    assert upstream_by_op(shape_of(job)) == {"orders": set(), "orders_complete": {"orders"}}


# Who waits for whom


def test_inputs_and_outputs_of_nested_graphs_are_followed_to_the_ops() -> None:
    first, last = an_op("first", memory="1Gi"), an_op("last", 1)

    @dg.op
    def middle(x: Any) -> Any: ...

    @dg.op
    def other(x: Any) -> Any: ...

    @dg.op
    def source() -> Any: ...

    @dg.graph
    def inner(x: Any) -> Any:
        other(x)
        return middle(x)

    @dg.graph
    def outer(x: Any) -> Any:
        return inner(x)

    @dg.job
    def job() -> None:
        first()
        last(i0=outer(source()))

    assert upstream_by_op(shape_of(job)) == {
        "first": set(),
        "source": set(),
        "outer.inner.other": {"source"},
        "outer.inner.middle": {"source"},
        "last": {"outer.inner.middle"},
    }


def test_ops_of_every_item_of_a_dynamic_output_are_mapped_until_the_collect() -> None:
    @dg.op(out=dg.DynamicOut())
    def split() -> Any: ...

    @dg.op(tags=MEMORY)
    def work(x: Any) -> Any: ...

    @dg.op
    def gather(x: Any) -> Any: ...

    @dg.graph
    def two_steps(x: Any) -> Any:
        return work.alias("second")(work.alias("first")(x))

    @dg.job
    def job() -> None:
        gather(split().map(two_steps).collect())

    mapped = {op.handle: op.mapped for op in shape_of(job).ops}
    assert mapped == {"split": False, "two_steps.first": True, "two_steps.second": True, "gather": False}


# How steps run

SINGLE = an_op("single", memory="1Gi")


def job_with(executor: dg.ExecutorDefinition | None, **settings: Any) -> dg.JobDefinition:
    @dg.job(executor_def=executor, **settings)
    def job() -> None:
        SINGLE()

    return job


CUSTOM = dg.ExecutorDefinition("custom", {"queue": str})

EXECUTORS: list[tuple[dg.ExecutorDefinition | None, Steps]] = [
    (None, Steps.RUN_CONFIG),
    (dg.multi_or_in_process_executor, Steps.RUN_CONFIG),
    (dg.in_process_executor, Steps.ONE_BY_ONE),
    (dg.multiprocess_executor, Steps.SIDE_BY_SIDE),
    (dg.multiprocess_executor.configured({"max_concurrent": 3}), Steps.UNKNOWN),
    (dg.in_process_executor.configured({}), Steps.UNKNOWN),
    (CUSTOM, Steps.ONE_BY_ONE),
]


@pytest.mark.parametrize(("executor", "steps"), EXECUTORS)
def test_the_executor_is_recognized_by_its_config_schema(
    executor: dg.ExecutorDefinition | None, steps: Steps
) -> None:
    assert shape_of(job_with(executor)).steps is steps


def test_the_jobs_own_config_is_the_default_of_its_runs() -> None:
    execution = {"config": {"multiprocess": {"max_concurrent": 2}}}
    job = job_with(None, config={"execution": execution})
    assert json.loads(shape_of(job).execution_default) == execution


# Snapshots of other Dagsters, and what is none


def test_a_snapshot_of_dagster_1_9_has_the_tags_of_uses_too() -> None:
    shape = job_shape((DATA / "dagster-1.9-nested.json").read_text())
    assert tags_by_op(shape) == {
        "load": [("op load", {"runyard/memory": "4Gi"})],
        "outer.mid.inner.train": [
            ("graph outer.mid.inner", {"runyard/cluster": "g"}),
            ("graph outer.mid.inner", {"runyard/cluster": "g", "runyard/gpu": "1"}),
            ("op outer.mid.inner.train", {"runyard/cpu": "1"}),
            ("op outer.mid.inner.train", {"runyard/cpu": "2"}),
        ],
    }
    assert upstream_by_op(shape) == {"load": set(), "outer.mid.inner.train": {"load"}}
    assert shape.steps is Steps.ONE_BY_ONE


def spoilt(*path: str) -> str:
    """A snapshot in which one part is something else."""
    whole = json.loads(snapshot_of(job_with(None)))
    at = whole
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = [5]
    return json.dumps(whole)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "{} {}",
        spoilt("solid_definitions_snapshot", "solid_def_snaps"),
        spoilt("dep_structure_snapshot", "solid_invocation_snaps"),
        spoilt("mode_def_snaps"),
        spoilt("config_schema_snapshot", "all_config_snaps_by_key"),
    ],
)
def test_text_that_is_not_a_snapshot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        job_shape(text)


def test_a_snapshot_of_nothing_has_no_ops() -> None:
    assert job_shape("{}").ops == ()


def test_graphs_that_multiply_without_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_OPS", 100)
    train = an_op("train", memory="4Gi")

    @dg.graph
    def ten() -> None:
        for number in range(10):
            train.alias(f"train{number}")()

    @dg.job
    def job() -> None:
        for number in range(11):
            ten.alias(f"ten{number}")()

    with pytest.raises(ValueError, match="more than 100 ops"):
        shape_of(job)


def test_a_graph_inside_itself_is_refused() -> None:
    @dg.graph
    def inner() -> None:
        SINGLE()

    @dg.job
    def job() -> None:
        inner()

    whole = json.loads(snapshot_of(job))
    (graph,) = whole["solid_definitions_snapshot"]["composite_solid_def_snaps"]
    graph["dep_structure_snapshot"]["solid_invocation_snaps"][0]["solid_def_name"] = "inner"
    with pytest.raises(ValueError, match="nests graphs deeper than"):
        job_shape(json.dumps(whole))
