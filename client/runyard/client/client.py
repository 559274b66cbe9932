"""The client of the coordinator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, Unpack

import grpc

from runyard.client.calls import Calls
from runyard.client.connection import Connection
from runyard.client.health import CHECK_METHOD, CHECK_REQUEST, Health, read_health
from runyard.client.reports import PendingAcknowledgements, ReportFollower
from runyard.client.requests import (
    LaunchDryRun,
    RunMatch,
    RunPages,
    drain_request,
    explain_launch_request,
    launched_run,
    logs_request,
    run_filter,
    snapshot_messages,
    snapshot_missing,
)
from runyard.client.security_calls import SecurityCalls
from runyard.common.transport.tls import TlsFiles
from runyard.v1 import fleet_pb2, launch_pb2, placement_pb2, run_pb2


class Client:
    """Client of the coordinator. Safe to share between threads, and to use in a forked child.

    It connects on first use. A forked child opens its own channel, because gRPC channels do not survive a
    fork. One limit remains: a child that was forked while another thread was inside gRPC, in a call or
    reading a stream, may crash when it uses gRPC; with GRPC_ENABLE_FORK_SUPPORT=0 it always hangs.

    All calls raise `RunyardError`; after `CoordinatorUnreachable`, the effect of the call is unknown.
    """

    def __init__(self, address: str, *, timeout: float = 10.0, tls: TlsFiles | None = None) -> None:
        """Check the address and read the files; nothing is connected yet.

        Args:
            address: `host:port`, `[ipv6]:port` or `unix:/path` of the coordinator.
            timeout: Seconds for each call that is not given another deadline.
            tls: Authorities to trust, and this side's certificate; read again when the files change. None:
                plain text, which is allowed for local addresses only.

        Raises:
            InvalidAddress: The address cannot be understood.
            InsecureAddress: It is not local and `tls` is None.
            InvalidTlsFiles: The files cannot be used.
            ValueError: `timeout` is not above zero.
        """
        self._calls = Calls(address, timeout, tls)

    @property
    def address(self) -> str:
        """Address of the coordinator."""
        return self._calls.address

    @property
    def timeout(self) -> float:
        """Seconds for each call that is not given another deadline."""
        return self._calls.timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close this process's connection and end its streams. Later calls raise `ClientClosed`."""
        self._calls.close()

    # Runs

    def launch_run(
        self,
        spec: run_pb2.LaunchSpec,
        *,
        snapshot: Callable[[], bytes] | None = None,
        timeout: float | None = None,
    ) -> run_pb2.Run:
        """Launch a run; returns when the launch is durable, before the worker starts.

        Repeated inside its deadline while the coordinator is unavailable.

        Args:
            spec: What to launch. Its run ID and resume number are the idempotency key.
            snapshot: Gives the serialized job snapshot `spec.job_snapshot_id`. Called only when the
                coordinator does not hold that snapshot yet.
            timeout: Seconds for everything. None: the client's.

        Raises:
            CoordinatorUnreachable: No answer in time; the run may or may not have been launched. Repeat it.
            LaunchConflict: The run was launched before with another content.
            LaunchRefused: No node could ever run it, or an attempt of the run is still live.
            InvalidRequest: A field is wrong, or the snapshot is wanted and was not given.
        """
        call = self._calls.repeated("LaunchRun", timeout)
        request = launch_pb2.LaunchRunRequest(spec=spec)
        response = self._calls.repeat(call, lambda to: to.launch.LaunchRun, request)
        if response.snapshot_needed:
            if snapshot is None:
                raise snapshot_missing(spec)
            messages = snapshot_messages(spec.job_snapshot_id, snapshot())
            self._calls.repeat_pieces(call, lambda to: to.launch.StoreSnapshot, messages)
            response = self._calls.repeat(call, lambda to: to.launch.LaunchRun, request)
        return launched_run(response, self.address)

    def terminate_run(
        self, run_id: str, *, reason: str, timeout: float | None = None
    ) -> launch_pb2.TerminateRunResponse:
        """Request the end of a run; returns when the request is durable, before the worker has ended.

        Repeated inside its deadline while the coordinator is unavailable. For a run never seen it leaves a
        tombstone that wins over a late launch.

        Args:
            run_id: Dagster's run ID.
            reason: Who asks and why, in one sentence; shown as the cause.
            timeout: Seconds for everything. None: the client's.
        """
        request = launch_pb2.TerminateRunRequest(run_id=run_id, reason=reason)
        call = self._calls.repeated("TerminateRun", timeout)
        return self._calls.repeat(call, lambda to: to.launch.TerminateRun, request)

    def get_run(self, run_id: str, timeout: float | None = None) -> launch_pb2.GetRunResponse:
        """Return the latest attempt of a run, and the events of all its attempts.

        Raises:
            RunNotFound: The coordinator has never had it.
        """
        request = launch_pb2.GetRunRequest(run_id=run_id)
        return self._calls.once("GetRun", lambda to: to.launch.GetRun, request, timeout)

    def explain_run(self, run_id: str, timeout: float | None = None) -> placement_pb2.Explanation:
        """Explain the placement of a run, or what it waits for.

        Raises:
            RunNotFound: The coordinator has never had it.
        """
        request = launch_pb2.ExplainRunRequest(run_id=run_id)
        return self._calls.once("ExplainRun", lambda to: to.launch.ExplainRun, request, timeout).explanation

    def explain_launch(
        self, *, timeout: float | None = None, **launch: Unpack[LaunchDryRun]
    ) -> placement_pb2.Explanation:
        """Explain where a launch would go now. Changes nothing.

        Args:
            timeout: Seconds for the call. None: the client's.
            **launch: What would be launched.

        Raises:
            InvalidRequest: A tag cannot be understood.
            LaunchRefused: The launch would be refused.
            NotFound: The coordinator does not hold the job snapshot.
        """
        request = explain_launch_request(launch)
        return self._calls.once(
            "ExplainLaunch", lambda to: to.launch.ExplainLaunch, request, timeout
        ).explanation

    def list_runs(
        self, *, limit: int | None = None, timeout: float | None = None, **match: Unpack[RunMatch]
    ) -> Iterator[run_pb2.Run]:
        """Yield the matching runs, newest first; pages are requested as they are needed.

        Args:
            limit: Most runs to give. None: all.
            timeout: Seconds for each page. None: the client's.
            **match: Which runs.
        """
        pages = RunPages(run_filter(match), limit)
        while pages.request is not None:
            yield from pages.take(
                self._calls.once("ListRuns", lambda to: to.launch.ListRuns, pages.request, timeout)
            )

    def watch_runs(self, *, timeout: float | None = None, **match: Unpack[RunMatch]) -> Iterator[run_pb2.Run]:
        """Yield the matching runs as they are, then each change, until the stream breaks.

        Args:
            timeout: Seconds until the watch ends with `CoordinatorUnreachable`. None: a day.
            **match: Which runs.

        Raises:
            ResourceExhausted: The caller reads too slowly; watch again.
        """
        request = launch_pb2.WatchRunsRequest(filter=run_filter(match))
        for response in self._calls.stream("WatchRuns", lambda to: to.launch.WatchRuns, request, timeout):
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
    ) -> Iterator[launch_pb2.ReadLogsResponse]:
        """Yield the log of an attempt in pieces, from the node's disk, during the run and after it.

        Args:
            run_id: Dagster's run ID.
            stream: The worker's stdout or stderr.
            offset: Byte to start at; negative counts from the end.
            limit: Most bytes to give. 0: all there is.
            follow: Go on until the attempt is over and everything was given.
            attempt: Which attempt. None: the latest.
            timeout: Seconds for everything. None: a day.

        Raises:
            RunNotFound: The coordinator does not know the run, or the node has no such log.
            CoordinatorUnreachable: Also while the node is silent.
        """
        request = logs_request(run_id, stream, offset, limit, follow, attempt)
        yield from self._calls.stream("ReadLogs", lambda to: to.launch.ReadLogs, request, timeout)

    def follow_reports(self, deployment: str, reporter: str) -> ReportFollower:
        """Open the stream of a deployment's finished attempts, as its reporter, and wait for a turn.

        Args:
            deployment: Name of the Dagster deployment.
            reporter: Who reports, for people: host name and process ID.
        """
        pending = PendingAcknowledgements(deployment, reporter)
        lease = self._calls.lease()
        return ReportFollower(lease.connection.launch.FollowReports, pending, self.address, lease.end)

    # Fleet

    def list_nodes(self, cluster: str = "", timeout: float | None = None) -> list[fleet_pb2.Node]:
        """Return all nodes of a cluster, connected or not. An empty name means all clusters."""
        request = fleet_pb2.ListNodesRequest(cluster=cluster)
        return list(self._calls.once("ListNodes", lambda to: to.fleet.ListNodes, request, timeout).nodes)

    def get_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """Return one node.

        Raises:
            NodeNotFound: It never joined.
        """
        request = fleet_pb2.GetNodeRequest(node_id=node_id)
        return self._calls.once("GetNode", lambda to: to.fleet.GetNode, request, timeout).node

    def cordon_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """Keep new runs off a node; its present runs continue.

        Raises:
            NodeNotFound: It never joined.
        """
        request = fleet_pb2.CordonNodeRequest(node_id=node_id)
        return self._calls.once("CordonNode", lambda to: to.fleet.CordonNode, request, timeout).node

    def uncordon_node(self, node_id: str, timeout: float | None = None) -> fleet_pb2.Node:
        """End a cordon or a drain.

        Raises:
            NodeNotFound: It never joined.
        """
        request = fleet_pb2.UncordonNodeRequest(node_id=node_id)
        return self._calls.once("UncordonNode", lambda to: to.fleet.UncordonNode, request, timeout).node

    def drain_node(
        self, node_id: str, *, deadline: float | None = None, timeout: float | None = None
    ) -> fleet_pb2.Node:
        """Keep new runs off a node until it is empty; returns at once.

        Args:
            node_id: The node.
            deadline: Seconds after which the runs that are left are stopped. None: they are waited for.
            timeout: Seconds for the call. None: the client's.

        Raises:
            NodeNotFound: It never joined.
        """
        request = drain_request(node_id, deadline)
        return self._calls.once("DrainNode", lambda to: to.fleet.DrainNode, request, timeout).node

    def fence_node(
        self, node_id: str, *, reason: str, timeout: float | None = None
    ) -> fleet_pb2.FenceNodeResponse:
        """Confirm that a node and all its workers are off: its runs end as NODE_LOST, and may be repeated.

        Args:
            node_id: The node.
            reason: Who made sure of it, and how; shown as the cause of the runs' end.
            timeout: Seconds for the call. None: the client's.

        Raises:
            NodeNotFound: It never joined.
            Refused: It is in session, so it is not off.
        """
        request = fleet_pb2.FenceNodeRequest(node_id=node_id, reason=reason)
        return self._calls.once("FenceNode", lambda to: to.fleet.FenceNode, request, timeout)

    def refresh_warm_servers(self, node_id: str, name: str = "", timeout: float | None = None) -> int:
        """Replace warm servers of a node; returns when the node was asked. Runs that they forked continue.

        Args:
            node_id: The node.
            name: Of one server. Empty: all that are not resting.
            timeout: Seconds for the call. None: the client's.

        Returns:
            How many servers the node was asked for.

        Raises:
            NotFound: The node never joined, or has no server of that name.
            Refused: It is not in session.
        """
        request = fleet_pb2.RefreshWarmServersRequest(node_id=node_id, name=name)
        return self._calls.once(
            "RefreshWarmServers", lambda to: to.fleet.RefreshWarmServers, request, timeout
        ).servers

    def list_clusters(self, timeout: float | None = None) -> list[fleet_pb2.Cluster]:
        """Return the clusters, each with the sum over its nodes."""
        request = fleet_pb2.ListClustersRequest()
        return list(
            self._calls.once("ListClusters", lambda to: to.fleet.ListClusters, request, timeout).clusters
        )

    @property
    def security(self) -> SecurityCalls:
        """Tokens and certificates, for admins."""
        return SecurityCalls(self._calls)

    def check_health(self, timeout: float | None = None) -> Health:
        """Ask the coordinator for its health."""
        return read_health(self._calls.once("Check", _health_check, CHECK_REQUEST, timeout))


def _health_check(to: Connection) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    return to.channel.unary_unary(CHECK_METHOD)
