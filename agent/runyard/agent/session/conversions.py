"""Conversion of the agent's own types to protobuf messages."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from runyard.agent.core.effects import Reject
from runyard.agent.core.model import (
    Accepted,
    AttemptPhase,
    Finished,
    HeldAttempt,
    Outcome,
    Running,
    Starting,
    Stopping,
)
from runyard.agent.core.pressure import Pressure
from runyard.agent.node.capacity import NodeResources
from runyard.agent.node.facts import NodeFacts, NodeLoad, WorkerUsage
from runyard.agent.node.pressure import in_words
from runyard.common.protobuf_time import to_duration, to_timestamp
from runyard.common.secrets import masked
from runyard.v1 import agent_pb2, fleet_pb2, placement_pb2, run_pb2


def status_of(held: HeldAttempt, usage: WorkerUsage | None = None) -> agent_pb2.AttemptStatus:
    """Convert an attempt for Hello, heartbeats and reports."""
    phase = held.phase
    return agent_pb2.AttemptStatus(
        run_id=held.key.run_id,
        attempt=held.key.attempt,
        phase=_phase_of(phase),
        progress=phase.progress if isinstance(phase, Starting) else "",
        pid=(phase.pid or 0) if isinstance(phase, Running | Stopping) else 0,
        outcome=outcome_of(phase.outcome) if isinstance(phase, Finished) else None,
        usage=usage_of(usage) if usage else None,
        resume_number=held.identity.resume_number,
        deployment=held.identity.deployment,
        job=held.identity.job,
        location=held.identity.location,
        requirements=None if isinstance(phase, Finished) else held.identity.requirements,
    )


def rejection_of(rejection: Reject) -> agent_pb2.Rejection:
    """Convert a rejection of an assignment."""
    key = rejection.key
    return agent_pb2.Rejection(
        run_id=key.run_id, attempt=key.attempt, reason=masked(rejection.message), cause=rejection.reason_code
    )


def outcome_of(outcome: Outcome) -> run_pb2.Outcome:
    """Convert an outcome."""
    return run_pb2.Outcome(
        kind=run_pb2.OutcomeKind.Value(f"OUTCOME_KIND_{outcome.kind.name}"),
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        message=outcome.message,
        stderr_tail=outcome.stderr_tail,
        peak_rss_bytes=outcome.peak_rss_bytes,
        memory_limit_bytes=outcome.memory_limit_bytes,
        cause=outcome.reason_code,
    )


def _phase_of(phase: AttemptPhase) -> run_pb2.Phase.ValueType:
    match phase:
        case Accepted():
            return run_pb2.PHASE_ASSIGNED
        case Starting():
            return run_pb2.PHASE_STARTING
        case Running():
            return run_pb2.PHASE_RUNNING
        case Stopping():
            return run_pb2.PHASE_STOPPING
        case Finished():
            return run_pb2.PHASE_FINISHED


def facts_of(facts: NodeFacts) -> fleet_pb2.NodeFacts:
    """Convert the facts of the machine."""
    return fleet_pb2.NodeFacts(**asdict(facts))


def offer_of(resources: NodeResources) -> placement_pb2.Offer:
    """Convert the resources of the node."""
    return placement_pb2.Offer(
        labels=resources.labels,
        drivers=resources.drivers,
        taints=resources.taints,
        resources=resources.resources,
        reserved=resources.reserved,
        largest_run=resources.largest_run,
        gateway=resources.gateway,
    )


def load_of(load: NodeLoad) -> fleet_pb2.NodeLoad:
    """Convert the load of the machine."""
    return fleet_pb2.NodeLoad(**asdict(load))


def pressure_of(pressure: Pressure) -> fleet_pb2.Pressure:
    """Convert a shortage of the node."""
    kind = fleet_pb2.PressureKind.Value(f"PRESSURE_KIND_{pressure.scarce.name}")
    return fleet_pb2.Pressure(kind=kind, message=in_words(pressure))


def warm_server_of(described: Mapping[str, Any]) -> fleet_pb2.WarmServer:
    """Convert a warm server; see `drivers.base.WarmKeeper.snapshot`."""
    fields = dict(described)
    state, mode = fields.pop("state").upper(), fields.pop("mode").upper()
    return fleet_pb2.WarmServer(
        state=fleet_pb2.WarmServerState.Value(f"WARM_SERVER_STATE_{state}"),
        mode=fleet_pb2.WarmMode.Value(f"WARM_MODE_{mode or 'UNSPECIFIED'}"),
        state_for=to_duration(fields.pop("state_seconds")),
        preload=to_duration(fields.pop("preload_seconds")) if "preload_seconds" in fields else None,
        **fields,
    )


def usage_of(usage: WorkerUsage) -> run_pb2.WorkerUsage:
    """Convert the resources that a worker uses."""
    message = run_pb2.WorkerUsage(
        cpu_cores=usage.cpu_cores, rss_bytes=usage.rss_bytes, peak_rss_bytes=usage.peak_rss_bytes
    )
    if usage.last_output_at is not None:
        message.last_output_at.CopyFrom(to_timestamp(usage.last_output_at))
    return message
