"""The asyncio client of the coordinator: the mirror of `client.py`."""

# ruff: noqa: ASYNC109 - these timeouts are deadlines that travel with the call, so the coordinator knows them too

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import grpc
import grpc.aio

from runyard.client.acknowledgements import PendingAcknowledgements
from runyard.client.address import parse_address, require_local_unless_insecure
from runyard.client.aio_reports import AsyncReportFollower
from runyard.client.channel import open_aio_channel
from runyard.client.errors import ClientClosed, from_rpc_error
from runyard.client.health import CHECK_METHOD, CHECK_REQUEST, Health, read_health
from runyard.client.repetition import RepeatedCall
from runyard.client.requests import (
    STREAM_TIMEOUT_SECONDS,
    RunMatch,
    RunPages,
    ThoughtLaunch,
    drain_request,
    explain_launch_request,
    launch_request,
    launched_run,
    logs_request,
    require_positive,
    run_filter,
    snapshot_missing,
)
from runyard.v1 import fleet_pb2, launch_pb2, placement_pb2, run_pb2
from runyard.v1.fleet_pb2_grpc import FleetServiceStub
from runyard.v1.launch_pb2_grpc import LaunchServiceStub

if TYPE_CHECKING:  # these names exist in the type stubs only
    from runyard.v1.fleet_pb2_grpc import FleetServiceAsyncStub
    from runyard.v1.launch_pb2_grpc import LaunchServiceAsyncStub

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class _Connection:
    """A channel and its stubs; belongs to the event loop in which it was opened."""

    def __init__(self, address: str) -> None:
        self.channel = open_aio_channel(address)
        self.launch: LaunchServiceAsyncStub = LaunchServiceStub(self.channel)
        self.fleet: FleetServiceAsyncStub = FleetServiceStub(self.channel)


class AsyncClient:
    """Talks to the coordinator from one event loop; every method means what it means in `Client`."""

    def __init__(self, address: str, *, timeout: float = 10.0, insecure: bool = False) -> None:
        """Checks the address; connects nowhere. See `Client`."""
        target = parse_address(address)
        require_local_unless_insecure(target, insecure, "dial")
        self.address = str(target)
        self.timeout = require_positive(timeout)
        self._closed = False
        self._opened: _Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection and ends its streams. Later calls raise `ClientClosed`."""
        self._closed = True
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.channel.close()

    # Runs

    async def launch_run(
        self,
        spec: run_pb2.LaunchSpec,
        *,
        snapshot: Callable[[], bytes] | None = None,
        timeout: float | None = None,
    ) -> run_pb2.Run:
        """See `Client.launch_run`. `snapshot` is called, and its result compressed, in a thread."""
        stub = self._connection().launch.LaunchRun
        call = self._repeated("LaunchRun", timeout)
        response = await self._repeat(call, stub, launch_request(spec))
        if response.snapshot_needed:
            if snapshot is None:
                raise snapshot_missing(spec)
            request = await asyncio.to_thread(lambda: launch_request(spec, snapshot()))
            response = await self._repeat(call, stub, request)
        return launched_run(response, self.address)

    async def terminate_run(
        self, run_id: str, *, reason: str, timeout: float | None = None
    ) -> launch_pb2.TerminateRunResponse:
        """See `Client.terminate_run`."""
        request = launch_pb2.TerminateRunRequest(run_id=run_id, reason=reason)
        call = self._repeated("TerminateRun", timeout)
        return await self._repeat(call, self._connection().launch.TerminateRun, request)

    async def get_run(self, run_id: str, timeout: float | None = None) -> launch_pb2.GetRunResponse:
        """See `Client.get_run`."""
        request = launch_pb2.GetRunRequest(run_id=run_id)
        return await self._call("GetRun", self._connection().launch.GetRun, request, timeout)

    async def explain_run(self, run_id: str, timeout: float | None = None) -> placement_pb2.Explanation:
        """See `Client.explain_run`."""
        request = launch_pb2.ExplainRunRequest(run_id=run_id)
        stub = self._connection().launch.ExplainRun
        return (await self._call("ExplainRun", stub, request, timeout)).explanation

    async def explain_launch(
        self, *, timeout: float | None = None, **launch: Unpack[ThoughtLaunch]
    ) -> placement_pb2.Explanation:
        """See `Client.explain_launch`."""
        request = explain_launch_request(launch)
        stub = self._connection().launch.ExplainLaunch
        return (await self._call("ExplainLaunch", stub, request, timeout)).explanation

    async def list_runs(
        self, *, limit: int | None = None, timeout: float | None = None, **match: Unpack[RunMatch]
    ) -> AsyncIterator[run_pb2.Run]:
        """See `Client.list_runs`."""
        pages = RunPages(run_filter(match), limit)
        while pages.request is not None:
            stub = self._connection().launch.ListRuns
            for run in pages.take(await self._call("ListRuns", stub, pages.request, timeout)):
                yield run

    async def watch_runs(
        self, *, timeout: float | None = None, **match: Unpack[RunMatch]
    ) -> AsyncIterator[run_pb2.Run]:
        """See `Client.watch_runs`."""
        request = launch_pb2.WatchRunsRequest(filter=run_filter(match))
        stub = self._connection().launch.WatchRuns
        async for response in self._messages("WatchRuns", stub, request, timeout):
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
        return self._messages("ReadLogs", self._connection().launch.ReadLogs, request, timeout)

    def follow_reports(self, deployment: str, reporter: str) -> AsyncReportFollower:
        """See `Client.follow_reports`."""
        pending = PendingAcknowledgements(deployment, reporter)
        return AsyncReportFollower(self._connection().launch.FollowReports, pending, self.address)

    # Fleet

    async def list_nodes(self, cluster: str = "", timeout: float | None = None) -> list[fleet_pb2.Node]:
        """See `Client.list_nodes`."""
        request = fleet_pb2.ListNodesRequest(cluster=cluster)
        return list(
            (await self._call("ListNodes", self._connection().fleet.ListNodes, request, timeout)).nodes
        )

    async def get_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """See `Client.get_node`."""
        request = fleet_pb2.GetNodeRequest(node_id=node_id)
        return (await self._call("GetNode", self._connection().fleet.GetNode, request, timeout)).node

    async def cordon_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """See `Client.cordon_node`."""
        request = fleet_pb2.CordonNodeRequest(node_id=node_id)
        return (await self._call("CordonNode", self._connection().fleet.CordonNode, request, timeout)).node

    async def uncordon_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """See `Client.uncordon_node`."""
        request = fleet_pb2.UncordonNodeRequest(node_id=node_id)
        stub = self._connection().fleet.UncordonNode
        return (await self._call("UncordonNode", stub, request, timeout)).node

    async def drain_node(
        self, node_id: str, *, deadline: float | None = None, timeout: float | None = None
    ) -> fleet_pb2.Node:
        """See `Client.drain_node`."""
        request = drain_request(node_id, deadline)
        return (await self._call("DrainNode", self._connection().fleet.DrainNode, request, timeout)).node

    async def fence_node(
        self, node_id: str, *, reason: str, timeout: float | None = None
    ) -> fleet_pb2.FenceNodeResponse:
        """See `Client.fence_node`."""
        request = fleet_pb2.FenceNodeRequest(node_id=node_id, reason=reason)
        return await self._call("FenceNode", self._connection().fleet.FenceNode, request, timeout)

    async def refresh_warm_servers(self, node_id: str, name: str = "", timeout: float | None = None) -> int:
        """See `Client.refresh_warm_servers`."""
        request = fleet_pb2.RefreshWarmServersRequest(node_id=node_id, name=name)
        stub = self._connection().fleet.RefreshWarmServers
        return (await self._call("RefreshWarmServers", stub, request, timeout)).servers

    async def list_clusters(self, timeout: float | None = None) -> list[fleet_pb2.Cluster]:
        """See `Client.list_clusters`."""
        request = fleet_pb2.ListClustersRequest()
        stub = self._connection().fleet.ListClusters
        return list((await self._call("ListClusters", stub, request, timeout)).clusters)

    async def check_health(self, timeout: float | None = None) -> Health:
        """See `Client.check_health`."""
        stub: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        stub = self._connection().channel.unary_unary(CHECK_METHOD)
        return read_health(await self._call("Check", stub, CHECK_REQUEST, timeout))

    # Calls

    def _connection(self) -> _Connection:
        if self._closed:
            raise ClientClosed
        if self._opened is None:
            self._opened = _Connection(self.address)
        return self._opened

    def _repeated(self, method: str, timeout: float | None) -> RepeatedCall:
        seconds = self.timeout if timeout is None else require_positive(timeout)
        return RepeatedCall(method, self.address, seconds, time.monotonic())

    async def _repeat(
        self,
        call: RepeatedCall,
        stub: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
    ) -> ResponseT:
        while True:
            try:
                return await stub(request, timeout=call.remaining(time.monotonic()))
            except grpc.RpcError as error:
                await asyncio.sleep(call.pause_after(error, time.monotonic()))

    async def _call(
        self,
        method: str,
        stub: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
    ) -> ResponseT:
        seconds = self.timeout if timeout is None else require_positive(timeout)
        try:
            return await stub(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address, method) from error

    async def _messages(
        self,
        method: str,
        stub: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
    ) -> AsyncIterator[ResponseT]:
        """Gives the messages of a stream; ends the call when the caller stops to read."""
        seconds = STREAM_TIMEOUT_SECONDS if timeout is None else require_positive(timeout)
        call = stub(request, timeout=seconds)
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address, method) from error
        finally:
            call.cancel()
