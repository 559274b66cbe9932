"""Launches that are only thought of: what nobody said is taken from the latest launch that is like them."""

from collections.abc import Iterable
from typing import Final

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.model import Launch, Run
from runyard.coordinator.grpc.errors import NotFound
from runyard.coordinator.grpc.requests import launch_of
from runyard.coordinator.grpc.snapshots import Snapshots
from runyard.v1 import launch_pb2, run_pb2

IMAGINED_RUN: Final = "00000000-0000-0000-0000-000000000000"
"""Its run ID."""

AD_HOC: Final = "__ASSET_JOB"
"""How the names of jobs begin whose snapshots differ from run to run, as they hold the chosen assets."""


def imagined_spec(request: launch_pb2.ExplainLaunchRequest, known: Iterable[Run]) -> run_pb2.LaunchSpec:
    """The spec of a launch that is only thought of.

    What its deployment and its code location ask for, and the snapshot of its job, are those of the latest
    launches that are known.

    Raises:
        InvalidField: The job is not named.
    """
    if not request.job:
        raise InvalidField("job", "is empty; name the job that would be launched")
    alike = [run.launch for run in _newest_first(known) if run.launch.deployment == request.deployment]
    neighbours = [launch for launch in alike if launch.location == request.location]
    spec = run_pb2.LaunchSpec(
        run_id=IMAGINED_RUN,
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        deployment=request.deployment,
        code_origin=run_pb2.CodeOrigin(
            location=request.location, repository=request.repository, job=request.job
        ),
        tags=request.tags,
        job_snapshot_id=request.job_snapshot_id or _snapshot_of(request.job, neighbours),
        step_keys=request.step_keys,
    )
    if alike:
        spec.requirements.CopyFrom(alike[0].spec.requirements)
        spec.policies.CopyFrom(alike[0].spec.policies)
    if neighbours:
        spec.code_origin.container_context_json = neighbours[0].spec.code_origin.container_context_json
    return spec


async def imagined_launch(
    request: launch_pb2.ExplainLaunchRequest, snapshots: Snapshots, known: Iterable[Run], launched_by: str
) -> Launch:
    """The launch, as it would be read if it came.

    Raises:
        InvalidField: A field or a tag makes no sense.
        NotFound: The snapshot that the request names is not held.
    """
    spec = imagined_spec(request, known)
    ops = None
    try:
        ops = await snapshots.ops_layer(spec.job_snapshot_id, spec.step_keys, spec.execution_config_json)
    except NotFound:
        if request.job_snapshot_id:
            raise
    return launch_of(spec, ops, launched_by)


def _newest_first(runs: Iterable[Run]) -> list[Run]:
    return sorted(
        (run for run in runs if run.launch.layers), key=lambda run: run.times.launched, reverse=True
    )


def _snapshot_of(job: str, launches: Iterable[Launch]) -> str:
    if job.startswith(AD_HOC):
        return ""
    return next((each.spec.job_snapshot_id for each in launches if each.job == job), "")
