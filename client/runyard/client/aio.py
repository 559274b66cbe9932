"""The asyncio client of the coordinator: the mirror of `client.py`."""

# ruff: noqa: ASYNC109 - these timeouts are deadlines that travel with the call, so the coordinator knows them too

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self, Unpack

import grpc
import grpc.aio

from runyard.client.acknowledgements import PendingAcknowledgements
from runyard.client.aio_calls import AsyncCalls
from runyard.client.aio_connection import AsyncConnection
from runyard.client.aio_reports import AsyncReportFollower
from runyard.client.aio_security_calls import AsyncSecurityCalls
from runyard.client.health import CHECK_METHOD, CHECK_REQUEST, Health, read_health
from runyard.client.requests import (
    RunMatch,
    RunPages,
    ThoughtLaunch,
    drain_request,
    explain_launch_request,
    launched_run,
    logs_request,
    run_filter,
    snapshot_messages,
    snapshot_missing,
)
from runyard.common.transport.tls import TlsFiles
from runyard.v1 import fleet_pb2, launch_pb2, placement_pb2, run_pb2


class AsyncClient:
    """Talks to the coordinator from one event loop; every method means what it means in `Client`."""

    def __init__(self, address: str, *, timeout: float = 10.0, tls: TlsFiles | None = None) -> None:
        """Checks the address and reads the files; connects nowhere. See `Client`."""
        self._calls = AsyncCalls(address, timeout, tls)

    @property
    def address(self) -> str:
        """Of the coordinator."""
        return self._calls.address

    @property
    def timeout(self) -> float:
        """Seconds for each call that is not given another deadline."""
        return self._calls.timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection and ends its streams. Later calls raise `ClientClosed`."""
        await self._calls.close()

    # Runs

    async def launch_run(
        self,
        spec: run_pb2.LaunchSpec,
        *,
        snapshot: Callable[[], bytes] | None = None,
        timeout: float | None = None,
    ) -> run_pb2.Run:
        """See `Client.launch_run`. `snapshot` is called, and its result compressed, in a thread."""
        call = self._calls.repeated("LaunchRun", timeout)
        request = launch_pb2.LaunchRunRequest(spec=spec)
        response = await self._calls.repeat(call, lambda to: to.launch.LaunchRun, request)
        if response.snapshot_needed:
            if snapshot is None:
                raise snapshot_missing(spec)
            messages = await asyncio.to_thread(lambda: snapshot_messages(spec.job_snapshot_id, snapshot()))
            await self._calls.repeat_pieces(call, lambda to: to.launch.StoreSnapshot, messages)
            response = await self._calls.repeat(call, lambda to: to.launch.LaunchRun, request)
        return launched_run(response, self.address)

    async def terminate_run(
        self, run_id: str, *, reason: str, timeout: float | None = None
    ) -> launch_pb2.TerminateRunResponse:
        """See `Client.terminate_run`."""
        request = launch_pb2.TerminateRunRequest(run_id=run_id, reason=reason)
        call = self._calls.repeated("TerminateRun", timeout)
        return await self._calls.repeat(call, lambda to: to.launch.TerminateRun, request)

    async def get_run(self, run_id: str, timeout: float | None = None) -> launch_pb2.GetRunResponse:
        """See `Client.get_run`."""
        request = launch_pb2.GetRunRequest(run_id=run_id)
        return await self._calls.once("GetRun", lambda to: to.launch.GetRun, request, timeout)

    async def explain_run(self, run_id: str, timeout: float | None = None) -> placement_pb2.Explanation:
        """See `Client.explain_run`."""
        request = launch_pb2.ExplainRunRequest(run_id=run_id)
        return (
            await self._calls.once("ExplainRun", lambda to: to.launch.ExplainRun, request, timeout)
        ).explanation

    async def explain_launch(
        self, *, timeout: float | None = None, **launch: Unpack[ThoughtLaunch]
    ) -> placement_pb2.Explanation:
        """See `Client.explain_launch`."""
        request = explain_launch_request(launch)
        return (
            await self._calls.once("ExplainLaunch", lambda to: to.launch.ExplainLaunch, request, timeout)
        ).explanation

    async def list_runs(
        self, *, limit: int | None = None, timeout: float | None = None, **match: Unpack[RunMatch]
    ) -> AsyncIterator[run_pb2.Run]:
        """See `Client.list_runs`."""
        pages = RunPages(run_filter(match), limit)
        while pages.request is not None:
            for run in pages.take(
                await self._calls.once("ListRuns", lambda to: to.launch.ListRuns, pages.request, timeout)
            ):
                yield run

    async def watch_runs(
        self, *, timeout: float | None = None, **match: Unpack[RunMatch]
    ) -> AsyncIterator[run_pb2.Run]:
        """See `Client.watch_runs`."""
        request = launch_pb2.WatchRunsRequest(filter=run_filter(match))
        async for response in self._calls.stream(
            "WatchRuns", lambda to: to.launch.WatchRuns, request, timeout
        ):
            yield response.run

    def read_logs(
        self,
        run_id: str,
        *,
        stream: launch_pb2.LogStream.ValueType,
        offset: int = 0,
        limit: int = 0,
        follow: bool = False,
        attempt: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[launch_pb2.ReadLogsResponse]:
        """See `Client.read_logs`."""
        request = logs_request(run_id, stream, offset, limit, follow, attempt)
        return self._calls.stream("ReadLogs", lambda to: to.launch.ReadLogs, request, timeout)

    def follow_reports(self, deployment: str, reporter: str) -> AsyncReportFollower:
        """See `Client.follow_reports`."""
        pending = PendingAcknowledgements(deployment, reporter)
        connection = self._calls.begin()
        stub = connection.launch.FollowReports
        return AsyncReportFollower(stub, pending, self.address, connection.end_call)

    # Fleet

    async def list_nodes(self, cluster: str = "", timeout: float | None = None) -> list[fleet_pb2.Node]:
        """See `Client.list_nodes`."""
        request = fleet_pb2.ListNodesRequest(cluster=cluster)
        return list(
            (await self._calls.once("ListNodes", lambda to: to.fleet.ListNodes, request, timeout)).nodes
        )

    async def get_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """See `Client.get_node`."""
        request = fleet_pb2.GetNodeRequest(node_id=node_id)
        return (await self._calls.once("GetNode", lambda to: to.fleet.GetNode, request, timeout)).node

    async def cordon_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """See `Client.cordon_node`."""
        request = fleet_pb2.CordonNodeRequest(node_id=node_id)
        return (await self._calls.once("CordonNode", lambda to: to.fleet.CordonNode, request, timeout)).node

    async def uncordon_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """See `Client.uncordon_node`."""
        request = fleet_pb2.UncordonNodeRequest(node_id=node_id)
        return (
            await self._calls.once("UncordonNode", lambda to: to.fleet.UncordonNode, request, timeout)
        ).node

    async def drain_node(
        self, node_id: str, *, deadline: float | None = None, timeout: float | None = None
    ) -> fleet_pb2.Node:
        """See `Client.drain_node`."""
        request = drain_request(node_id, deadline)
        return (await self._calls.once("DrainNode", lambda to: to.fleet.DrainNode, request, timeout)).node

    async def fence_node(
        self, node_id: str, *, reason: str, timeout: float | None = None
    ) -> fleet_pb2.FenceNodeResponse:
        """See `Client.fence_node`."""
        request = fleet_pb2.FenceNodeRequest(node_id=node_id, reason=reason)
        return await self._calls.once("FenceNode", lambda to: to.fleet.FenceNode, request, timeout)

    async def refresh_warm_servers(self, node_id: str, name: str = "", timeout: float | None = None) -> int:
        """See `Client.refresh_warm_servers`."""
        request = fleet_pb2.RefreshWarmServersRequest(node_id=node_id, name=name)
        return (
            await self._calls.once(
                "RefreshWarmServers", lambda to: to.fleet.RefreshWarmServers, request, timeout
            )
        ).servers

    async def list_clusters(self, timeout: float | None = None) -> list[fleet_pb2.Cluster]:
        """See `Client.list_clusters`."""
        request = fleet_pb2.ListClustersRequest()
        return list(
            (
                await self._calls.once("ListClusters", lambda to: to.fleet.ListClusters, request, timeout)
            ).clusters
        )

    @property
    def security(self) -> AsyncSecurityCalls:
        """Tokens and certificates, for admins."""
        return AsyncSecurityCalls(self._calls)

    async def check_health(self, timeout: float | None = None) -> Health:
        """See `Client.check_health`."""
        return read_health(await self._calls.once("Check", _health_check, CHECK_REQUEST, timeout))


def _health_check(to: AsyncConnection) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return to.channel.unary_unary(CHECK_METHOD)
