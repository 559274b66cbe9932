"""A stand-in for the coordinator, for tests of its clients: real gRPC over a real loopback socket.

Behind it is small but real logic: idempotent launches, snapshots by ID, tombstones, pages, logs by offset, a
lease for reporters. It keeps all in memory, places nothing and starts nothing; tests move its runs by hand.
"""

import hashlib
import threading
import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from runyard.v1 import fleet_pb2, fleet_pb2_grpc, launch_pb2, launch_pb2_grpc, placement_pb2, run_pb2

STDOUT = launch_pb2.LOG_STREAM_STDOUT
STDERR = launch_pb2.LOG_STREAM_STDERR


def make_spec(run_id: str, *, snapshot_id: str = "", resume_number: int = 0) -> run_pb2.LaunchSpec:
    return run_pb2.LaunchSpec(
        run_id=run_id,
        resume_number=resume_number,
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        deployment="shop",
        job_snapshot_id=snapshot_id,
        code_origin=run_pb2.CodeOrigin(job="orders", location="shop"),
    )


class FakeCoordinator(launch_pb2_grpc.LaunchServiceServicer, fleet_pb2_grpc.FleetServiceServicer):
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.calls: list[tuple[str, Message]] = []
        self.failures: dict[str, list[tuple[grpc.StatusCode, str]]] = {}
        self.specs: dict[tuple[str, int], run_pb2.LaunchSpec] = {}
        self.runs: dict[str, run_pb2.Run] = {}
        self.events: dict[str, list[launch_pb2.RunEvent]] = {}
        self.explanations: dict[str, placement_pb2.Explanation] = {}
        self.snapshots: dict[str, bytes] = {}
        self.pieces: list[int] = []
        self.tombstones: set[str] = set()
        self.logs: dict[tuple[str, launch_pb2.LogStream.ValueType], bytes] = {}
        self.acknowledged: list[tuple[str, int]] = []
        self.reporters: list[str] = []
        self.nodes: list[fleet_pb2.Node] = []
        self.health = b"\x08\x01"
        self.stalled = threading.Event()  # unary calls wait while it is set
        self._reporting = threading.Lock()
        self._server: grpc.Server | None = None
        self.address = ""

    # Its life

    def start(self, address: str = "127.0.0.1:0") -> Self:
        # As the coordinator: a taken port is an error, and clients may ping on silent streams.
        options = [("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 5_000)]
        server = grpc.server(ThreadPoolExecutor(32), options=options)  # a stream holds its thread
        launch_pb2_grpc.add_LaunchServiceServicer_to_server(self, server)
        fleet_pb2_grpc.add_FleetServiceServicer_to_server(self, server)
        check: grpc.RpcMethodHandler[bytes, bytes]
        check = grpc.unary_unary_rpc_method_handler(lambda request, context: self.health)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),)
        )
        port = server.add_insecure_port(address)
        self.address = address if address.startswith("unix:") else f"{address.rsplit(':', 1)[0]}:{port}"
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None
        with self.changed:
            self.changed.notify_all()

    # What tests do to it

    def fail(self, method: str, code: grpc.StatusCode, details: str = "", times: int = 1) -> None:
        self.failures.setdefault(method, []).extend([(code, details)] * times)

    def requests(self, method: str) -> list[Message]:
        return [request for name, request in self.calls if name == method]

    def put_run(self, run: run_pb2.Run) -> None:
        with self.changed:
            self.runs[run.run_id] = run
            self.changed.notify_all()

    def move(self, change: run_pb2.Run) -> None:
        """Puts the set fields of `change` on the run of that ID; watchers see a new object."""
        run = run_pb2.Run()
        run.CopyFrom(self.runs[change.run_id])
        run.MergeFrom(change)
        self.put_run(run)

    # LaunchService

    def LaunchRun(
        self, request: launch_pb2.LaunchRunRequest, context: grpc.ServicerContext
    ) -> launch_pb2.LaunchRunResponse:
        self._enter("LaunchRun", request, context)
        spec = request.spec
        known = self.specs.get((spec.run_id, spec.resume_number))
        if known is not None and known != spec:
            context.abort(
                grpc.StatusCode.ALREADY_EXISTS, f"run {spec.run_id} was launched with another content"
            )
        if known is not None:
            return launch_pb2.LaunchRunResponse(run=self.runs[spec.run_id])
        if spec.job_snapshot_id and spec.job_snapshot_id not in self.snapshots:
            return launch_pb2.LaunchRunResponse(snapshot_needed=True)
        self.specs[spec.run_id, spec.resume_number] = spec
        self.put_run(self._launched(spec))
        return launch_pb2.LaunchRunResponse(run=self.runs[spec.run_id])

    def _launched(self, spec: run_pb2.LaunchSpec) -> run_pb2.Run:
        run = run_pb2.Run(
            run_id=spec.run_id,
            attempt=1,
            resume_number=spec.resume_number,
            deployment=spec.deployment,
            job=spec.code_origin.job,
            location=spec.code_origin.location,
            phase=run_pb2.PHASE_QUEUED,
        )
        run.launched_at.GetCurrentTime()
        if spec.run_id in self.tombstones:
            run.phase = run_pb2.PHASE_FINISHED
            run.outcome.kind = run_pb2.OUTCOME_KIND_STOPPED
        return run

    def StoreSnapshot(
        self, request_iterator: Iterator[launch_pb2.StoreSnapshotRequest], context: grpc.ServicerContext
    ) -> launch_pb2.StoreSnapshotResponse:
        first, *others = request_iterator
        self._enter("StoreSnapshot", first, context)
        self.pieces = [len(each.piece) for each in others]
        data = zlib.decompress(b"".join(each.piece for each in others))
        if hashlib.sha256(data).hexdigest() != first.header.sha256:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "header.sha256: does not fit the pieces")
        self.snapshots[first.header.job_snapshot_id] = data
        return launch_pb2.StoreSnapshotResponse()

    def TerminateRun(
        self, request: launch_pb2.TerminateRunRequest, context: grpc.ServicerContext
    ) -> launch_pb2.TerminateRunResponse:
        self._enter("TerminateRun", request, context)
        run = self.runs.get(request.run_id)
        if run is None:
            self.tombstones.add(request.run_id)
            return launch_pb2.TerminateRunResponse(stopping=False)
        if run.phase == run_pb2.PHASE_FINISHED:
            return launch_pb2.TerminateRunResponse(stopping=False, run=run)
        self.move(
            run_pb2.Run(
                run_id=request.run_id,
                phase=run_pb2.PHASE_STOPPING,
                stop_requested=True,
                message=request.reason,
            )
        )
        return launch_pb2.TerminateRunResponse(stopping=True, run=self.runs[request.run_id])

    def GetRun(
        self, request: launch_pb2.GetRunRequest, context: grpc.ServicerContext
    ) -> launch_pb2.GetRunResponse:
        self._enter("GetRun", request, context)
        run = self.runs.get(request.run_id)
        if run is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"run {request.run_id} is not known")
        return launch_pb2.GetRunResponse(run=run, events=self.events.get(request.run_id, []))

    def ExplainRun(
        self, request: launch_pb2.ExplainRunRequest, context: grpc.ServicerContext
    ) -> launch_pb2.ExplainRunResponse:
        self._enter("ExplainRun", request, context)
        if request.run_id not in self.runs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"run {request.run_id} is not known")
        return launch_pb2.ExplainRunResponse(explanation=self.explanations.get(request.run_id))

    def ExplainLaunch(
        self, request: launch_pb2.ExplainLaunchRequest, context: grpc.ServicerContext
    ) -> launch_pb2.ExplainLaunchResponse:
        self._enter("ExplainLaunch", request, context)
        if request.job_snapshot_id and request.job_snapshot_id not in self.snapshots:
            context.abort(grpc.StatusCode.NOT_FOUND, f"snapshot {request.job_snapshot_id} is not held here")
        return launch_pb2.ExplainLaunchResponse(explanation=self.explanations.get(request.job))

    def ListRuns(
        self, request: launch_pb2.ListRunsRequest, context: grpc.ServicerContext
    ) -> launch_pb2.ListRunsResponse:
        self._enter("ListRuns", request, context)
        matching = [run for run in reversed(self.runs.values()) if _matches(run, request.filter)]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        token = str(end) if end < len(matching) else ""
        return launch_pb2.ListRunsResponse(runs=matching[start:end], next_page_token=token)

    def WatchRuns(
        self, request: launch_pb2.WatchRunsRequest, context: grpc.ServicerContext
    ) -> Iterator[launch_pb2.WatchRunsResponse]:
        self._enter("WatchRuns", request, context)
        seen: dict[str, run_pb2.Run] = {}
        while self._server is not None and context.is_active():
            news = [run for run in list(self.runs.values()) if _matches(run, request.filter)]
            for run in news:
                if seen.get(run.run_id) is not run:
                    seen[run.run_id] = run
                    yield launch_pb2.WatchRunsResponse(run=run)
            with self.changed:
                self.changed.wait(0.1)

    def ReadLogs(
        self, request: launch_pb2.ReadLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[launch_pb2.ReadLogsResponse]:
        self._enter("ReadLogs", request, context)
        if request.run_id not in self.runs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"run {request.run_id} is not known")
        key = (request.run_id, request.stream)
        size = len(self.logs.get(key, b""))
        at = request.offset if request.offset >= 0 else max(0, size + request.offset)
        end = at + request.limit if request.limit else None
        while context.is_active():
            over = self.runs[request.run_id].phase == run_pb2.PHASE_FINISHED or not request.follow
            data = self.logs.get(key, b"")[at:end]
            for start in range(0, len(data), 65_536):
                piece = data[start : start + 65_536]
                yield launch_pb2.ReadLogsResponse(offset=at, data=piece)
                at += len(piece)
            if over:
                return
            with self.changed:
                self.changed.wait(0.1)

    def FollowReports(
        self, request_iterator: Iterator[launch_pb2.FollowReportsRequest], context: grpc.ServicerContext
    ) -> Iterator[launch_pb2.FollowReportsResponse]:
        opening = next(request_iterator)
        self._enter("FollowReports", opening, context)
        while not self._reporting.acquire(timeout=0.1):
            if not context.is_active():
                return
        try:
            self.reporters.append(opening.reporter)
            threading.Thread(target=self._take, args=(request_iterator,), daemon=True).start()
            sent: set[tuple[str, int]] = set()
            while context.is_active():
                for run in list(self.runs.values()):
                    key = (run.run_id, run.attempt)
                    if run.phase == run_pb2.PHASE_FINISHED and key not in {*sent, *self.acknowledged}:
                        sent.add(key)
                        yield launch_pb2.FollowReportsResponse(run=run)
                with self.changed:
                    self.changed.wait(0.1)
        finally:
            self._reporting.release()

    def _take(self, requests: Iterator[launch_pb2.FollowReportsRequest]) -> None:
        try:
            for request in requests:
                self.calls.append(("FollowReports", request))
                self.acknowledged.extend((key.run_id, key.attempt) for key in request.acknowledged)
        except grpc.RpcError:
            pass  # the reporter left

    # FleetService

    def ListNodes(
        self, request: fleet_pb2.ListNodesRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.ListNodesResponse:
        self._enter("ListNodes", request, context)
        nodes = [node for node in self.nodes if request.cluster in ("", node.cluster)]
        return fleet_pb2.ListNodesResponse(nodes=nodes)

    def GetNode(
        self, request: fleet_pb2.GetNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.GetNodeResponse:
        self._enter("GetNode", request, context)
        return fleet_pb2.GetNodeResponse(node=self._node(request.node_id, context))

    def ListClusters(
        self, request: fleet_pb2.ListClustersRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.ListClustersResponse:
        self._enter("ListClusters", request, context)
        clusters: dict[str, fleet_pb2.Cluster] = {}
        for node in self.nodes:
            cluster = clusters.setdefault(node.cluster, fleet_pb2.Cluster(name=node.cluster))
            cluster.nodes += 1
            if node.state == fleet_pb2.NODE_STATE_READY:
                cluster.nodes_ready += 1
                _add(cluster.resources, node.offer.resources)
                _add(cluster.allocated, node.allocated)
        return fleet_pb2.ListClustersResponse(clusters=clusters.values())

    def CordonNode(
        self, request: fleet_pb2.CordonNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.CordonNodeResponse:
        self._enter("CordonNode", request, context)
        node = self._serve(request.node_id, context, cordoned=True, draining=False)
        return fleet_pb2.CordonNodeResponse(node=node)

    def UncordonNode(
        self, request: fleet_pb2.UncordonNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.UncordonNodeResponse:
        self._enter("UncordonNode", request, context)
        node = self._serve(request.node_id, context, cordoned=False, draining=False)
        return fleet_pb2.UncordonNodeResponse(node=node)

    def DrainNode(
        self, request: fleet_pb2.DrainNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.DrainNodeResponse:
        self._enter("DrainNode", request, context)
        node = self._serve(request.node_id, context, cordoned=True, draining=True)
        return fleet_pb2.DrainNodeResponse(node=node)

    def FenceNode(
        self, request: fleet_pb2.FenceNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.FenceNodeResponse:
        self._enter("FenceNode", request, context)
        node = self._node(request.node_id, context)
        if node.state == fleet_pb2.NODE_STATE_READY:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"node {node.node_id} is in session")
        ended, node.state = node.allocated["slots"], fleet_pb2.NODE_STATE_LOST
        node.allocated.clear()
        return fleet_pb2.FenceNodeResponse(node=node, runs_ended=ended)

    def RefreshWarmServers(
        self, request: fleet_pb2.RefreshWarmServersRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.RefreshWarmServersResponse:
        self._enter("RefreshWarmServers", request, context)
        node = self._node(request.node_id, context)
        if node.state != fleet_pb2.NODE_STATE_READY:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"node {node.node_id} is not in session")
        meant = [server for server in node.warm_servers if request.name in ("", server.name)]
        if request.name and not meant:
            context.abort(grpc.StatusCode.NOT_FOUND, f"node {node.node_id} has no warm server {request.name}")
        return fleet_pb2.RefreshWarmServersResponse(servers=len(meant))

    def _serve(
        self, node_id: str, context: grpc.ServicerContext, *, cordoned: bool, draining: bool
    ) -> fleet_pb2.Node:
        node = self._node(node_id, context)
        node.cordoned, node.draining = cordoned, draining
        return node

    def _node(self, node_id: str, context: grpc.ServicerContext) -> fleet_pb2.Node:
        found = [node for node in self.nodes if node.node_id == node_id]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"node {node_id} never joined")
        return found[0]

    def _enter(self, method: str, request: Message, context: grpc.ServicerContext) -> None:
        self.calls.append((method, request))
        while self.stalled.is_set() and context.is_active():
            with self.changed:
                self.changed.wait(0.05)
        failures = self.failures.get(method)
        if failures:
            context.abort(*failures.pop(0))


def make_node(
    node_id: str,
    cluster: str = "east",
    state: fleet_pb2.NodeState.ValueType = fleet_pb2.NODE_STATE_READY,
    *,
    slots: int = 0,
    used: int = 0,
    **fields: Any,
) -> fleet_pb2.Node:
    """A node with so many slots, of which so many are taken."""
    node = fleet_pb2.Node(node_id=node_id, cluster=cluster, state=state, **fields)
    node.offer.resources["slots"] = slots
    if used:
        node.allocated["slots"] = used
    return node


def _add(sums: MutableMapping[str, int], amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        sums[name] += amount


def _matches(run: run_pb2.Run, wanted: launch_pb2.RunFilter) -> bool:
    return (
        (not wanted.run_ids or run.run_id in wanted.run_ids)
        and (not wanted.phases or run.phase in wanted.phases)
        and wanted.cluster in ("", run.cluster)
        and wanted.node in ("", run.node)
        and wanted.deployment in ("", run.deployment)
    )
