"""Real Dagster definitions, and the snapshots that Dagster makes of them."""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._serdes import serialize_value

from runyard.coordinator.core.requirements.ops import ops_layer
from runyard.coordinator.core.requirements.requirements import RequirementLayer
from runyard.coordinator.core.requirements.snapshot import JobShape, job_shape


def snapshot_of(job: dg.JobDefinition) -> str:
    """Snapshot of a job as Dagster stores it."""
    return serialize_value(job.get_job_snapshot())


def shape_of(job: dg.JobDefinition) -> JobShape:
    """Outline of a job as Runyard reads it."""
    return job_shape(snapshot_of(job))


def merged_layer(
    job: dg.JobDefinition, *step_keys: str, execution: Mapping[str, Any] | None = None
) -> RequirementLayer | None:
    """Requirements of all ops of a run together, with that `execution` in its run config."""
    config = json.loads(json.dumps(execution or {}))
    layer = ops_layer(shape_of(job), step_keys, config)
    return layer.from_source("") if layer else None


def amounts_of(
    job: dg.JobDefinition, *step_keys: str, execution: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Resources of `merged_layer`."""
    layer = merged_layer(job, *step_keys, execution=execution)
    return dict(layer.resources) if layer else {}


def an_op(name: str, ins: int = 0, /, **tags: str) -> dg.OpDefinition:
    """An op with so many inputs and the tags `runyard/...`."""
    return dg.OpDefinition(
        compute_fn=lambda: None,
        name=name,
        ins={f"i{number}": dg.In(dg.Nothing) for number in range(ins)},
        tags={f"runyard/{key}": value for key, value in tags.items()},
    )


def implicit_job(*assets: Any) -> dg.JobDefinition:
    """The job of an ad-hoc materialization."""
    return dg.Definitions(assets=assets).resolve_implicit_global_asset_job_def()
