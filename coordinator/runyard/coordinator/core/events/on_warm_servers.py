"""Warm servers of nodes: interpreters whose forks start runs of a code location quickly."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from runyard.coordinator.core.errors import NodeIsSilent, UnknownNode, UnknownWarmServer
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Node
from runyard.v1 import agent_pb2, fleet_pb2

SERVERS_KEPT: Final = 64
"""Warm servers of a node that are looked at, as the protocol says."""


def with_warmth(node: Node, reported: Sequence[fleet_pb2.WarmServer]) -> Node:
    """Return the node with the warm servers that its agent reports."""
    servers = tuple(reported[:SERVERS_KEPT])
    ready = (server for server in servers if server.state == fleet_pb2.WARM_SERVER_STATE_READY)
    warm_for = frozenset(location for server in ready for location in server.code_locations)
    return replace(node, warm_servers=servers, warm_for=warm_for)


def on_refresh_warm_servers(fleet: Fleet, node_id: str, name: str) -> int:
    """Event: an operator refreshes warm servers -> the node replaces them.

    Args:
        fleet: The node's.
        node_id: The node.
        name: Name of one server; empty: all that are not resting.

    Returns:
        Number of servers that it was asked to replace.

    Raises:
        UnknownNode: It never joined.
        NodeIsSilent: It is not in session.
        UnknownWarmServer: It has no server of that name.
    """
    node = fleet.nodes.get(node_id)
    if node is None:
        raise UnknownNode(f"no node {node_id!r} has ever joined this coordinator")
    if not node.is_ready:
        raise NodeIsSilent(f"node {node_id} is not in session, so it cannot be asked; see to its agent first")
    meant = [server for server in node.warm_servers if _is_meant(server, name)]
    if name and not meant:
        raise UnknownWarmServer(
            f"node {node_id} has no warm server {name[:80]!r}; it has {_names(node) or 'none at all'}"
        )
    command = agent_pb2.RefreshWarmServers(name=name)
    fleet.send(node_id, agent_pb2.SessionResponse(refresh_warm_servers=command))
    return len(meant)


def _is_meant(server: fleet_pb2.WarmServer, name: str) -> bool:
    return server.name == name if name else server.state != fleet_pb2.WARM_SERVER_STATE_RESTING


def _names(node: Node) -> str:
    return ", ".join(server.name for server in node.warm_servers)
