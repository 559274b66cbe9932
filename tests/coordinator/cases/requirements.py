"""Requirements of a run: five layers, the ops of its job, and mistakes in tags."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from coordinator.cases.building import (
    CLUSTERS,
    ZONES,
    Asked,
    Case,
    NodeOffer,
    asked,
    job,
    labelled,
    node,
    op,
    tags,
)

from runyard.v1 import placement_pb2

GREEDY = job(op("fetch", memory="2Gi"), op("train", memory="6Gi"))
GREEDY_AT_ONCE = job(op("fetch", memory="2Gi"), op("train", memory="7Gi"), executor=dg.multiprocess_executor)
TORN = job(op("fetch", labels="zone=a"), op("train", labels="zone=b"))


def deployment(**wanted: Any) -> placement_pb2.Requirements:
    """Requirements in the launcher's settings, for all runs of a deployment."""
    return placement_pb2.Requirements(**wanted)


LAYERS = [
    Case("a run that asks for nothing goes to the node that there is", goes="a"),
    Case(
        "a run tag chooses the cluster",
        asked(cluster="annex"),
        CLUSTERS,
        goes="x",
    ),
    Case(
        "the deployment's settings choose for all its runs",
        Asked(deployment=deployment(labels=["zone=b"])),
        ZONES,
        goes="b",
    ),
    Case(
        "the coordinator's defaults choose if no other layer does",
        rules="defaults: {labels: {zone: b}}",
        fleet=ZONES,
        goes="b",
    ),
    Case(
        "the deployment overrides the coordinator's defaults",
        Asked(deployment=deployment(labels=["zone=b"])),
        ZONES,
        rules="defaults: {labels: {zone: a}}",
        goes="b",
    ),
    Case(
        "a routing rule overrides the deployment",
        Asked(deployment=deployment(labels=["zone=a"])),
        ZONES,
        rules="rules: [{name: all, set: {labels: {zone: b}}}]",
        goes="b",
    ),
    Case(
        "the code location overrides a routing rule",
        Asked(context={"labels": {"zone": "b"}}),
        ZONES,
        rules="rules: [{name: all, set: {labels: {zone: a}}}]",
        goes="b",
    ),
    Case(
        "op tags override the code location",
        Asked(job(op("train", labels="zone=b")), context={"labels": {"zone": "a"}}),
        ZONES,
        goes="b",
    ),
    Case(
        "run tags override op tags",
        Asked(job(op("train", labels="zone=a")), tags(labels="zone=b")),
        ZONES,
        goes="b",
    ),
    Case(
        "labels of other keys add up over the layers",
        Asked(job(op("train", labels="disk=ssd")), tags(labels="zone=b"), context={"labels": {"os": "new"}}),
        (
            labelled("a", zone="b", disk="ssd"),
            labelled("b", zone="b", os="new"),
            labelled("c", zone="b", os="new", disk="ssd"),
        ),
        goes="c",
    ),
    Case(
        "a larger amount of a lower layer does not survive a smaller one above it",
        Asked(job(op("train", memory="64Gi")), tags(memory="1Gi")),
        (node("small", memory="8Gi"),),
        goes="small",
    ),
    Case(
        "zero in a run tag cancels the amount of the ops",
        Asked(job(op("train", gpu="1")), tags(gpu="0")),
        (node("plain"),),
        goes="plain",
    ),
    Case(
        "one dictionary tag holds all keys",
        Asked(tags=tags(config='{"cluster": "annex", "labels": {"zone": ["b", "c"]}, "cpu": 2}')),
        (
            NodeOffer("m", "main", amounts={"cpu": 4}, labels={"zone": "b"}),
            NodeOffer("x", "annex", amounts={"cpu": 1}, labels={"zone": "b"}),
            NodeOffer("y", "annex", amounts={"cpu": 4}, labels={"zone": "c"}),
        ),
        goes="y",
    ),
    Case(
        "a shorthand overrides the dictionary tag beside it",
        Asked(tags=tags(config='{"labels": {"zone": "a"}}', labels="zone=b")),
        ZONES,
        goes="b",
    ),
]


def asset(name: str, **asks: str) -> dg.AssetsDefinition:
    """An asset whose op carries tags."""

    @dg.asset(name=name, op_tags=tags(**asks))
    def made() -> None: ...

    return made


def ad_hoc(*assets: dg.AssetsDefinition, only: Sequence[str] = ()) -> dg.JobDefinition:
    """Job of an ad-hoc materialization: all assets, or a selection."""
    whole = dg.Definitions(assets=assets).resolve_implicit_global_asset_job_def()
    return whole.get_subset(asset_selection={dg.AssetKey(name) for name in only}) if only else whole


def nested(*inner: dg.OpDefinition, **asks: str) -> dg.JobDefinition:
    """A job whose ops are three graphs deep; the middle graph carries tags."""
    deepest = dg.GraphDefinition(name="deepest", node_defs=list(inner))
    middle = dg.GraphDefinition(name="middle", node_defs=[deepest], tags=tags(**asks))
    return job(dg.GraphDefinition(name="outer", node_defs=[middle]))


def chained(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    """Two ops, of which the second depends on the first; each requires 6Gi."""

    @dg.op(tags=tags(memory="6Gi"))
    def fetch() -> int:
        return 1

    @dg.op(tags=tags(memory="6Gi"))
    def train(rows: int) -> int:
        return rows

    @dg.job(executor_def=executor)
    def orders() -> None:
        train(fetch())

    return orders


def mapped() -> dg.JobDefinition:
    """An op for each item of a dynamic output, concurrently; each requires 3Gi."""

    @dg.op(out=dg.DynamicOut(int))
    def split() -> Any:
        yield dg.DynamicOutput(1, "one")

    @dg.op(tags=tags(memory="3Gi"))
    def train(item: int) -> None: ...

    @dg.job(executor_def=dg.multiprocess_executor)
    def orders() -> None:
        split().map(train)

    return orders


OPS = [
    Case(
        "an ad-hoc materialisation without run tags goes where its asset's op tags say",
        Asked(ad_hoc(asset("forecast", labels="zone=b"))),
        ZONES,
        goes="b",
    ),
    Case(
        "of assets that contradict each other, only the selected one counts",
        Asked(ad_hoc(asset("sales", labels="zone=a"), asset("forecast", labels="zone=b"), only=["forecast"])),
        ZONES,
        goes="b",
    ),
    Case(
        "all assets together contradict each other, and both are named",
        Asked(ad_hoc(asset("sales", labels="zone=a"), asset("forecast", labels="zone=b"))),
        ZONES,
        refused="forecast",
    ),
    Case(
        "of the ops of a job, only those of the steps that will run count",
        Asked(TORN, steps=["train"]),
        ZONES,
        goes="b",
    ),
    Case(
        "labels of several ops are joined to what satisfies both",
        Asked(job(op("fetch", labels="zone=a|b"), op("train", labels="zone=b|c"))),
        ZONES,
        goes="b",
    ),
    Case(
        "ops that contradict each other refuse the run and name the first of them",
        Asked(TORN),
        ZONES,
        refused="op fetch",
    ),
    Case(
        "ops that contradict each other refuse the run and name the second of them",
        Asked(TORN),
        ZONES,
        refused="op train",
    ),
    Case(
        "ops that want different clusters refuse the run",
        Asked(job(op("fetch", cluster="main"), op("train", cluster="annex"))),
        CLUSTERS,
        refused="op train",
    ),
    Case(
        "an executor that runs one step at a time needs the memory of the largest step",
        Asked(GREEDY),
        (node("a", memory="8Gi"),),
        goes="a",
    ),
    Case(
        "an executor that runs steps concurrently needs the memory of both",
        Asked(GREEDY_AT_ONCE),
        (node("a", memory="8Gi"), node("b", memory="9Gi")),
        goes="b",
    ),
    Case(
        "two concurrent steps that fit no node together are refused",
        Asked(GREEDY_AT_ONCE),
        (node("a", memory="8Gi"),),
        refused="memory",
    ),
    Case(
        "max_concurrent 1 in the run config needs the memory of the largest step",
        Asked(GREEDY_AT_ONCE, execution={"config": {"max_concurrent": 1}}),
        (node("a", memory="8Gi"),),
        goes="a",
    ),
    Case(
        "steps that depend on each other never run concurrently",
        Asked(chained(dg.multiprocess_executor)),
        (node("a", memory="8Gi"),),
        goes="a",
    ),
    Case(
        "a mapped op counts once if max_concurrent is not set",
        Asked(mapped()),
        (node("a", memory="4Gi"),),
        goes="a",
    ),
    Case(
        "a mapped op counts max_concurrent times",
        Asked(mapped(), execution={"config": {"max_concurrent": 3}}),
        (node("a", memory="8Gi"), node("b", memory="9Gi")),
        goes="b",
    ),
    Case(
        "tags of a graph apply to ops that are two graphs deeper",
        Asked(nested(op("train"), labels="zone=b")),
        ZONES,
        goes="b",
    ),
    Case(
        "an op's own tag overrides that of the graph around it",
        Asked(nested(op("train", labels="zone=b"), labels="zone=a")),
        ZONES,
        goes="b",
    ),
]

MISTAKES = [
    Case("a misspelt run tag is named with what was meant", asked(memroy="1Gi"), refused="runyard/memory?"),
    Case("an amount that is none is named with its tag", asked(cpu="many"), refused="tag runyard/cpu of the"),
    Case(
        "a mistake in an op's tag names the op",
        Asked(job(op("train", memory="much"))),
        refused="tag runyard/memory of op train",
    ),
    Case(
        "a dictionary tag that is not a dictionary is refused with an example",
        asked(config="memory: 1Gi"),
        refused='write for example {"memory": "16Gi"}',
    ),
    Case(
        "an unknown key of a code location names the code location",
        Asked(context={"memmory": "1Gi"}),
        refused="code location shop",
    ),
    Case(
        "an invalid rule on labels is refused with the remedy",
        asked(labels="zone=a b"),
        refused="runyard/labels",
    ),
    Case("a part of a GPU is refused", asked(gpu="0.5"), refused="whole number"),
    Case("slots cannot be asked for", asked(resources='{"slots": 2}'), refused="every run takes exactly one"),
    Case("a taint that is none is refused", asked(tolerations="a b"), refused="runyard/tolerations"),
]
