"""Dry runs of launches: missing fields are taken from the latest similar launch."""

from collections.abc import Iterable
from typing import Final

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.model import Launch, Run
from runyard.coordinator.grpc.errors import NotFound
from runyard.coordinator.grpc.messages.requests import launch_of
from runyard.coordinator.grpc.snapshots import Snapshots
from runyard.v1 import launch_pb2, run_pb2

DRY_RUN_ID: Final = "00000000-0000-0000-0000-000000000000"
"""Run ID of every dry run."""

AD_HOC: Final = "__ASSET_JOB"
"""Prefix of jobs whose snapshots differ from run to run, since they hold the selected assets."""


def dry_run_spec(request: launch_pb2.ExplainLaunchRequest, runs: Iterable[Run]) -> run_pb2.LaunchSpec:
    """Return the spec of a dry run.

    The requirements of its deployment and its code location, and the snapshot of its job, are those of the
    latest launches.

    Raises:
        InvalidField: The job is not named.
    """
    if not request.job:
        raise InvalidField("job", "is empty; name the job that would be launched")
    similar = [run.launch for run in _newest_first(runs) if run.launch.deployment == request.deployment]
    same_location = [launch for launch in similar if launch.location == request.location]
    spec = run_pb2.LaunchSpec(
        run_id=DRY_RUN_ID,
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        deployment=request.deployment,
        code_origin=run_pb2.CodeOrigin(
            location=request.location, repository=request.repository, job=request.job
        ),
        tags=request.tags,
        job_snapshot_id=request.job_snapshot_id or _snapshot_of(request.job, same_location),
        step_keys=request.step_keys,
    )
    if similar:
        spec.requirements.CopyFrom(similar[0].spec.requirements)
        spec.policies.CopyFrom(similar[0].spec.policies)
    if same_location:
        spec.code_origin.container_context_json = same_location[0].spec.code_origin.container_context_json
    return spec


async def dry_run_launch(
    request: launch_pb2.ExplainLaunchRequest, snapshots: Snapshots, runs: Iterable[Run], launched_by: str
) -> Launch:
    """Return the launch that the request describes.

    Raises:
        InvalidField: A field or a tag is invalid.
        NotFound: The request names a snapshot that the coordinator does not have.
    """
    spec = dry_run_spec(request, runs)
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
