"""FleetService: the nodes and clusters."""

from runyard.common.protobuf_time import to_seconds
from runyard.coordinator.audit.audit import Audit, actor_of, audited
from runyard.coordinator.audit.events import (
    NodeCordoned,
    NodeDrained,
    NodeFenced,
    NodeUncordoned,
    WarmServersRefreshed,
)
from runyard.coordinator.auth.callers import caller_of
from runyard.coordinator.core.client_scope import ClientScope
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.on_operator import on_cordon, on_drain, on_fence, on_uncordon
from runyard.coordinator.core.events.on_warm_servers import on_refresh_warm_servers
from runyard.coordinator.grpc.errors import Context, NotFound
from runyard.coordinator.grpc.messages.views import cluster_views, node_view
from runyard.coordinator.runtime.runtime import Runtime
from runyard.v1 import fleet_pb2, fleet_pb2_grpc


class FleetService(fleet_pb2_grpc.FleetServiceServicer):
    """See `runyard/v1/fleet.proto` for the contract of each method."""

    def __init__(self, runtime: Runtime, audit: Audit) -> None:
        self._runtime = runtime
        self._audit = audit

    async def ListNodes(
        self, request: fleet_pb2.ListNodesRequest, context: Context
    ) -> fleet_pb2.ListNodesResponse:
        fleet, scope = self._runtime.fleet, self._scope(context)
        nodes = [
            node_view(fleet, node)
            for _, node in sorted(fleet.nodes.items())
            if request.cluster in ("", node.cluster) and scope.includes_cluster(node.cluster)
        ]
        return fleet_pb2.ListNodesResponse(nodes=nodes)

    async def GetNode(self, request: fleet_pb2.GetNodeRequest, context: Context) -> fleet_pb2.GetNodeResponse:
        node = self._runtime.fleet.nodes.get(request.node_id)
        if node is None or not self._scope(context).includes_cluster(node.cluster):
            raise NotFound(f"no node {request.node_id!r} has ever joined this coordinator")
        return fleet_pb2.GetNodeResponse(node=node_view(self._runtime.fleet, node))

    async def ListClusters(
        self, request: fleet_pb2.ListClustersRequest, context: Context
    ) -> fleet_pb2.ListClustersResponse:
        scope = self._scope(context)
        clusters = [each for each in cluster_views(self._runtime.fleet) if scope.includes_cluster(each.name)]
        return fleet_pb2.ListClustersResponse(clusters=clusters)

    async def CordonNode(
        self, request: fleet_pb2.CordonNodeRequest, context: Context
    ) -> fleet_pb2.CordonNodeResponse:
        with audited(self._audit, NodeCordoned(by=actor_of(context), node=request.node_id)):
            await self._runtime.decide(lambda fleet, at: on_cordon(fleet, at, request.node_id))
        return fleet_pb2.CordonNodeResponse(node=self._view(request.node_id))

    async def UncordonNode(
        self, request: fleet_pb2.UncordonNodeRequest, context: Context
    ) -> fleet_pb2.UncordonNodeResponse:
        with audited(self._audit, NodeUncordoned(by=actor_of(context), node=request.node_id)):
            await self._runtime.decide(lambda fleet, at: on_uncordon(fleet, at, request.node_id))
        return fleet_pb2.UncordonNodeResponse(node=self._view(request.node_id))

    async def DrainNode(
        self, request: fleet_pb2.DrainNodeRequest, context: Context
    ) -> fleet_pb2.DrainNodeResponse:
        deadline = to_seconds(request.deadline) if request.HasField("deadline") else None
        if deadline is not None and deadline < 0:
            raise InvalidField("deadline", f"is {deadline:g} s; it cannot be negative")
        with audited(self._audit, NodeDrained(by=actor_of(context), node=request.node_id)):
            await self._runtime.decide(lambda fleet, at: on_drain(fleet, at, request.node_id, deadline))
        return fleet_pb2.DrainNodeResponse(node=self._view(request.node_id))

    async def FenceNode(
        self, request: fleet_pb2.FenceNodeRequest, context: Context
    ) -> fleet_pb2.FenceNodeResponse:
        if not request.reason:
            raise InvalidField("reason", "is empty; say who made sure that the node is off, and how")
        event = NodeFenced(by=actor_of(context), node=request.node_id, message=request.reason)
        with audited(self._audit, event):
            ended = await self._runtime.decide(
                lambda fleet, at: on_fence(fleet, at, request.node_id, request.reason)
            )
        return fleet_pb2.FenceNodeResponse(node=self._view(request.node_id), runs_ended=ended)

    async def RefreshWarmServers(
        self, request: fleet_pb2.RefreshWarmServersRequest, context: Context
    ) -> fleet_pb2.RefreshWarmServersResponse:
        with audited(self._audit, WarmServersRefreshed(by=actor_of(context), node=request.node_id)):
            count = await self._runtime.decide(
                lambda fleet, _: on_refresh_warm_servers(fleet, request.node_id, request.name)
            )
        return fleet_pb2.RefreshWarmServersResponse(servers=count)

    def _scope(self, context: Context) -> ClientScope:
        who = str(caller_of(context).identity)
        return ClientScope(who, self._runtime.fleet.config.client_clusters.get(who))

    def _view(self, node_id: str) -> fleet_pb2.Node:
        return node_view(self._runtime.fleet, self._runtime.fleet.nodes[node_id])
