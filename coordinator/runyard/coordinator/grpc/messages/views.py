"""Conversion of the core's state to messages of the protocol."""

from collections.abc import MutableMapping

from google.protobuf.timestamp_pb2 import Timestamp

from runyard.common.protobuf_time import to_timestamp
from runyard.coordinator.core.events.agent_messages import requirements_message
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import (
    Draining,
    Finished,
    Liveness,
    Lost,
    Node,
    Open,
    Phase,
    Ready,
    Run,
    Suspect,
)
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.grpc.messages.conversions import capacity_message, pressure_messages
from runyard.coordinator.store.rows import Row, phase_name
from runyard.v1 import fleet_pb2, launch_pb2, run_pb2


def phase_view(phase: Phase) -> run_pb2.Phase.ValueType:
    """Return the phase as an enum value of the protocol."""
    return run_pb2.Phase.Value(f"PHASE_{phase_name(phase).upper()}")


def _timestamp(seconds: float | None) -> Timestamp | None:
    return None if seconds is None else to_timestamp(seconds)


def run_view(fleet: Fleet, run: Run) -> run_pb2.Run:
    """Return the view of a run."""
    return run_pb2.Run(
        run_id=run.run_id,
        attempt=run.attempt,
        resume_number=run.launch.resume_number,
        deployment=run.launch.deployment,
        job=run.launch.job,
        location=run.launch.location,
        launched_by=run.launch.launched_by,
        phase=phase_view(run.phase),
        cluster=run.place.cluster if run.place else "",
        node=run.place.node if run.place else "",
        stop_requested=run.stop is not None,
        unreachable=fleet.unreachable(run),
        message=situation(fleet, run),
        pid=run.pid,
        outcome=run.phase.outcome if isinstance(run.phase, Finished) else None,
        launched_at=_timestamp(run.times.launched),
        assigned_at=_timestamp(run.times.assigned),
        running_at=_timestamp(run.times.running),
        finished_at=_timestamp(run.times.finished),
        usage=fleet.usage.get(run.run_id),
        requirements=requirements_message(run.launch.requirements),
        placed_because=run.place.because if run.place else "",
        rule=run.launch.route.rule,
        failed_places=[run_pb2.FailedPlace(node=node, reason=reason) for node, reason in run.refused_by],
    )


def event_view(row: Row) -> launch_pb2.RunEvent:
    """Return the view of one event in a run's history."""
    return launch_pb2.RunEvent(
        attempt=row["attempt"],
        phase=run_pb2.Phase.Value(f"PHASE_{row['phase'].upper()}"),
        node=row["node"],
        message=row["message"],
        at=_timestamp(row["at"]),
    )


def _state_view(liveness: Liveness) -> fleet_pb2.NodeState.ValueType:
    match liveness:
        case Ready():
            return fleet_pb2.NODE_STATE_READY
        case Suspect():
            return fleet_pb2.NODE_STATE_SUSPECT
        case Lost():
            return fleet_pb2.NODE_STATE_LOST
        case _:
            return fleet_pb2.NODE_STATE_UNREACHABLE


def node_view(fleet: Fleet, node: Node) -> fleet_pb2.Node:
    """Return the view of a node."""
    return fleet_pb2.Node(
        node_id=node.node_id,
        cluster=node.cluster,
        state=_state_view(node.liveness),
        offer=capacity_message(node.capacity),
        allocated=dict(fleet.allocated(node.node_id)),
        facts=node.facts,
        load=node.load,
        epoch=node.epoch,
        boot_id=node.boot_id,
        last_heard_at=_timestamp(node.last_heard_wall),
        cordoned=not isinstance(node.service, Open),
        draining=isinstance(node.service, Draining),
        warm_servers=node.warm_servers,
        pressures=pressure_messages(node.pressures),
    )


def cluster_views(fleet: Fleet) -> list[fleet_pb2.Cluster]:
    """Return the clusters by name, each with the sums over its nodes."""
    clusters: dict[str, fleet_pb2.Cluster] = {}
    for node in fleet.nodes.values():
        cluster = clusters.setdefault(node.cluster, fleet_pb2.Cluster(name=node.cluster))
        cluster.nodes += 1
        cluster.nodes_ready += node.is_ready
        if node.is_ready:
            _add(cluster.resources, node.capacity.resources)
            _add(cluster.allocated, fleet.allocated(node.node_id))
    return [clusters[name] for name in sorted(clusters)]


def _add(sums: MutableMapping[str, int], resources: Resources) -> None:
    for name, amount in resources:
        sums[name] += amount


def matches(wanted: launch_pb2.RunFilter, run: Run) -> bool:
    """True if the run matches the filter."""
    return (
        (not wanted.run_ids or run.run_id in wanted.run_ids)
        and (not wanted.phases or phase_view(run.phase) in wanted.phases)
        and (not wanted.cluster or (run.place is not None and run.place.cluster == wanted.cluster))
        and (not wanted.node or (run.place is not None and run.place.node == wanted.node))
        and (not wanted.deployment or run.launch.deployment == wanted.deployment)
    )
