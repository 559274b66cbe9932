"""FleetService: the nodes and clusters."""

from runyard.coordinator.rpc.errors import Context, NotFound, answering
from runyard.coordinator.rpc.views import cluster_views, node_view
from runyard.coordinator.shell import Shell
from runyard.v1 import fleet_pb2, fleet_pb2_grpc


class FleetService(fleet_pb2_grpc.FleetServiceServicer):
    """See `runyard/v1/fleet.proto` for what each method promises."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def ListNodes(
        self, request: fleet_pb2.ListNodesRequest, context: Context
    ) -> fleet_pb2.ListNodesResponse:
        fleet = self._shell.fleet
        nodes = [
            node_view(fleet, fleet.nodes[node_id])
            for node_id in sorted(fleet.nodes)
            if request.cluster in ("", fleet.nodes[node_id].cluster)
        ]
        return fleet_pb2.ListNodesResponse(nodes=nodes)

    async def GetNode(self, request: fleet_pb2.GetNodeRequest, context: Context) -> fleet_pb2.GetNodeResponse:
        async with answering(context):
            node = self._shell.fleet.nodes.get(request.node_id)
            if node is None:
                raise NotFound(f"no node {request.node_id!r} has ever joined this coordinator")
            return fleet_pb2.GetNodeResponse(node=node_view(self._shell.fleet, node))
        raise AssertionError("answering() ends the call")

    async def ListClusters(
        self, request: fleet_pb2.ListClustersRequest, context: Context
    ) -> fleet_pb2.ListClustersResponse:
        return fleet_pb2.ListClustersResponse(clusters=cluster_views(self._shell.fleet))
