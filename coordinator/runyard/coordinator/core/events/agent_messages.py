"""Messages to agents. Every command may be repeated without harm."""

from runyard.common.protobuf_time import to_duration
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Launch, Run
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.v1 import agent_pb2, placement_pb2, run_pb2


def assign(fleet: Fleet, run: Run) -> None:
    """Send the run's node the assignment to start the attempt."""
    assert run.place is not None
    node = fleet.nodes.get(run.place.node)
    command = agent_pb2.Assign(
        run_id=run.run_id,
        attempt=run.attempt,
        spec=_resolved_spec(run.launch),
        start_within=to_duration(fleet.leases.assignment_timeout(run.launch.time_limits)),
        after_heartbeat=node.heartbeat if node else 0,
    )
    fleet.send(run.place.node, agent_pb2.SessionResponse(assign=command))


def _resolved_spec(launch: Launch) -> run_pb2.LaunchSpec:
    """Return the spec with the compiled requirements and time limits."""
    spec = run_pb2.LaunchSpec()
    spec.CopyFrom(launch.spec)
    spec.requirements.CopyFrom(requirements_message(launch.requirements))
    limits = launch.time_limits
    spec.policies.Clear()
    for field in ("grace", "max_queue_time", "start_timeout", "stop_after"):
        if (seconds := getattr(limits, field)) is not None:
            getattr(spec.policies, field).CopyFrom(to_duration(seconds))
    return spec


def stop(fleet: Fleet, run: Run) -> None:
    """Send the run's node the command to end the attempt, or never to start it."""
    assert run.place is not None
    reason = run.stop.reason if run.stop else ""
    _stop(fleet, run.place.node, run.run_id, run.attempt, run.launch.time_limits.grace, reason)


def stop_stale(fleet: Fleet, node_id: str, run_id: str, attempt: int) -> None:
    """Send a node the command to end an attempt that is not the run's latest."""
    grace = fleet.runs[run_id].launch.time_limits.grace
    _stop(fleet, node_id, run_id, attempt, grace, "superseded: this is not the run's latest attempt")


def acknowledge(fleet: Fleet, node_id: str, run_id: str, attempt: int) -> None:
    """Acknowledge the end of an attempt: it is on disk here, or needs no record."""
    ack = agent_pb2.ReportAck(run_id=run_id, attempt=attempt)
    fleet.send(node_id, agent_pb2.SessionResponse(report_ack=ack))


def _stop(fleet: Fleet, node_id: str, run_id: str, attempt: int, grace: float, reason: str) -> None:
    command = agent_pb2.Stop(run_id=run_id, attempt=attempt, grace=to_duration(grace), reason=reason)
    fleet.send(node_id, agent_pb2.SessionResponse(stop=command))


def requirements_message(requirements: CompiledRequirements) -> placement_pb2.Requirements:
    """Return requirements as a message."""
    return placement_pb2.Requirements(
        cluster=requirements.cluster,
        node=requirements.node,
        labels=map(str, requirements.labels),
        driver=requirements.driver,
        resources=dict(requirements.resources),
        tolerations=requirements.tolerations,
        preferences=[
            placement_pb2.Preference(label=str(each.label), weight=each.weight)
            for each in requirements.preferences
        ],
        image=requirements.image,
        isolation=requirements.isolation,
    )
