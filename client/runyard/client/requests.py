"""Requests of clients, and the reading of answers. No I/O."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypedDict

from runyard.client.errors import CoordinatorFailed, InvalidRequest
from runyard.common.protobuf_time import to_duration
from runyard.v1 import fleet_pb2, launch_pb2, run_pb2

# The largest page that ListRuns gives.
MAX_PAGE_SIZE: Final = 1000

SNAPSHOT_PIECE_BYTES: Final = 256 * 1024

# Streams have a deadline too; a lost connection ends them far sooner, by keepalive.
STREAM_TIMEOUT_SECONDS: Final = 24 * 3600.0


def snapshot_messages(snapshot_id: str, serialized: bytes) -> tuple[launch_pb2.StoreSnapshotRequest, ...]:
    """A job snapshot as it travels: its name, and its compressed content in pieces."""
    header = launch_pb2.SnapshotHeader(
        job_snapshot_id=snapshot_id, sha256=hashlib.sha256(serialized).hexdigest()
    )
    data = zlib.compress(serialized)
    pieces = (
        data[start : start + SNAPSHOT_PIECE_BYTES] for start in range(0, len(data), SNAPSHOT_PIECE_BYTES)
    )
    return (
        launch_pb2.StoreSnapshotRequest(header=header),
        *(launch_pb2.StoreSnapshotRequest(piece=piece) for piece in pieces),
    )


def launched_run(response: launch_pb2.LaunchRunResponse, address: str) -> run_pb2.Run:
    """Reads the answer to a launch of which the coordinator has all that it needs.

    Raises:
        CoordinatorFailed: It asks for the snapshot that it was just given.
    """
    if response.snapshot_needed:
        raise CoordinatorFailed(
            f"the coordinator at {address} asked for the job snapshot again after it was sent"
        )
    return response.run


def snapshot_missing(spec: run_pb2.LaunchSpec) -> InvalidRequest:
    """The error for a launch whose snapshot the coordinator wants and the caller does not give."""
    return InvalidRequest(
        f"spec.job_snapshot_id: the coordinator does not hold snapshot {spec.job_snapshot_id!r}; "
        f"pass `snapshot`, or leave the ID empty"
    )


class RunMatch(TypedDict, total=False):
    """Which runs are meant. What is absent or empty matches all."""

    phases: Iterable[run_pb2.Phase.ValueType]
    cluster: str
    node: str
    deployment: str
    run_ids: Iterable[str]


def run_filter(match: RunMatch) -> launch_pb2.RunFilter:
    """Writes down which runs are meant."""
    return launch_pb2.RunFilter(**match)


class LaunchDryRun(TypedDict, total=False):
    """A launch that is only thought of. What is absent or empty is not known.

    Keys:
        deployment: Name of the Dagster deployment.
        job: Name of the job; `__ASSET_JOB` for assets that belong to none.
        location: Name of the code location.
        repository: Name of the repository in it.
        tags: Tags of the run.
        job_snapshot_id: Dagster's ID of a job snapshot that the coordinator holds; its op tags count.
        step_keys: Only these steps would run. None at all: those of the whole snapshot.
    """

    deployment: str
    job: str
    location: str
    repository: str
    tags: Mapping[str, str]
    job_snapshot_id: str
    step_keys: Iterable[str]


def explain_launch_request(launch: LaunchDryRun) -> launch_pb2.ExplainLaunchRequest:
    """Writes down the launch that is thought of."""
    return launch_pb2.ExplainLaunchRequest(**launch)


class RunPages:
    """The pages of one listing: says what to ask next, and which runs of an answer to hand out.

    Use: while `pages.request` is not None, call ListRuns with it and give the answer to `take`.
    """

    def __init__(self, matching: launch_pb2.RunFilter, limit: int | None) -> None:
        """Starts with the first page.

        Args:
            matching: Which runs.
            limit: Most runs to hand out. None: all.

        Raises:
            ValueError: `limit` is negative.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit: {limit} is negative; give None for all runs")
        self._matching = matching
        self._wanted = limit
        self.request: launch_pb2.ListRunsRequest | None = self._page("") if limit != 0 else None

    def take(self, response: launch_pb2.ListRunsResponse) -> Sequence[run_pb2.Run]:
        """Returns the runs of a page, cut at the limit, and sets `request` to the page after it."""
        runs = list(response.runs[: self._wanted])
        if self._wanted is not None:
            self._wanted -= len(runs)
        more = response.next_page_token and self._wanted != 0
        self.request = self._page(response.next_page_token) if more else None
        return runs

    def _page(self, token: str) -> launch_pb2.ListRunsRequest:
        size = MAX_PAGE_SIZE if self._wanted is None else min(self._wanted, MAX_PAGE_SIZE)
        return launch_pb2.ListRunsRequest(filter=self._matching, page_size=size, page_token=token)


def logs_request(
    run_id: str,
    stream: launch_pb2.LogStream.ValueType,
    offset: int,
    limit: int,
    follow: bool,
    attempt: int | None,
) -> launch_pb2.ReadLogsRequest:
    """Builds the request for a part of a log; see ReadLogsRequest for the fields."""
    return launch_pb2.ReadLogsRequest(
        run_id=run_id, stream=stream, offset=offset, limit=limit, follow=follow, attempt=attempt
    )


def attempt_key(run: run_pb2.Run) -> launch_pb2.AttemptKey:
    """The name of the attempt that a run shows, as acknowledgements carry it."""
    return launch_pb2.AttemptKey(run_id=run.run_id, attempt=run.attempt)


def drain_request(node_id: str, deadline: float | None) -> fleet_pb2.DrainNodeRequest:
    """Builds the request to empty a node.

    Args:
        node_id: The node.
        deadline: Seconds after which the runs that are left are stopped. None: they are waited for.
    """
    if deadline is None:
        return fleet_pb2.DrainNodeRequest(node_id=node_id)
    return fleet_pb2.DrainNodeRequest(node_id=node_id, deadline=to_duration(deadline))


def require_positive(timeout: float) -> float:
    """Checks a timeout in seconds.

    Raises:
        ValueError: It is not above zero.
    """
    if not timeout > 0:
        raise ValueError(f"timeout: {timeout} is not above zero; every call needs a deadline in seconds")
    return timeout
