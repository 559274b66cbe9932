"""The agent's own words as the protocol writes them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from google.protobuf.duration_pb2 import Duration

from runyard.agent.core.effects import Reject
from runyard.agent.core.model import (
    Accepted,
    AttemptPhase,
    Finished,
    HeldAttempt,
    LaunchIdentity,
    Outcome,
    Running,
    Starting,
    Stopping,
)
from runyard.agent.core.pressure import Pressure
from runyard.agent.node.capacity import Offer
from runyard.agent.node.facts import NodeFacts, NodeLoad, WorkerUsage
from runyard.agent.node.pressure import in_words
from runyard.common.secrets import masked
from runyard.v1 import agent_pb2, fleet_pb2, placement_pb2, run_pb2


def identity_of(spec: run_pb2.LaunchSpec) -> LaunchIdentity:
    """What of a launch is kept beside the attempt."""
    requirements = placement_pb2.Requirements()
    requirements.CopyFrom(spec.requirements)  # a part of a message would keep the whole of it in memory
    return LaunchIdentity(
        resume_number=spec.resume_number,
        deployment=spec.deployment,
        job=spec.code_origin.job,
        location=spec.code_origin.location,
        requirements=requirements,
    )


def status_of(held: HeldAttempt, usage: WorkerUsage | None = None) -> agent_pb2.AttemptStatus:
    """An attempt as Hello, heartbeats and reports list it."""
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


def rejection_of(refusal: Reject) -> agent_pb2.Rejection:
    """A refusal of an assignment."""
    key = refusal.key
    return agent_pb2.Rejection(
        run_id=key.run_id, attempt=key.attempt, reason=masked(refusal.reason), cause=refusal.why
    )


def outcome_of(outcome: Outcome) -> run_pb2.Outcome:
    """How an attempt ended."""
    return run_pb2.Outcome(
        kind=run_pb2.OutcomeKind.Value(f"OUTCOME_KIND_{outcome.kind.name}"),
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        message=outcome.message,
        stderr_tail=outcome.stderr_tail,
        peak_rss_bytes=outcome.peak_rss_bytes,
        memory_limit_bytes=outcome.memory_limit_bytes,
        cause=outcome.cause,
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
    """What the machine is."""
    return fleet_pb2.NodeFacts(**asdict(facts))


def offer_of(offer: Offer) -> placement_pb2.Offer:
    """What runs may have of the node."""
    return placement_pb2.Offer(
        labels=offer.labels,
        drivers=offer.drivers,
        taints=offer.taints,
        resources=offer.resources,
        reserved=offer.reserved,
        largest_run=offer.largest_run,
        gateway=offer.gateway,
    )


def load_of(load: NodeLoad) -> fleet_pb2.NodeLoad:
    """How busy the machine is."""
    return fleet_pb2.NodeLoad(**asdict(load))


def pressure_of(pressure: Pressure) -> fleet_pb2.Pressure:
    """What the node is short of."""
    kind = fleet_pb2.PressureKind.Value(f"PRESSURE_KIND_{pressure.scarce.name}")
    return fleet_pb2.Pressure(kind=kind, message=in_words(pressure))


def warm_server_of(described: Mapping[str, Any]) -> fleet_pb2.WarmServer:
    """A warm server; see `drivers.base.WarmKeeper.snapshot`."""
    fields = dict(described)
    state, mode = fields.pop("state").upper(), fields.pop("mode").upper()
    return fleet_pb2.WarmServer(
        state=fleet_pb2.WarmServerState.Value(f"WARM_SERVER_STATE_{state}"),
        mode=fleet_pb2.WarmMode.Value(f"WARM_MODE_{mode or 'UNSPECIFIED'}"),
        state_for=_duration(fields.pop("state_seconds")),
        preload=_duration(fields.pop("preload_seconds")) if "preload_seconds" in fields else None,
        **fields,
    )


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def usage_of(usage: WorkerUsage) -> run_pb2.WorkerUsage:
    """What a worker uses."""
    message = run_pb2.WorkerUsage(
        cpu_cores=usage.cpu_cores, rss_bytes=usage.rss_bytes, peak_rss_bytes=usage.peak_rss_bytes
    )
    if usage.last_output_at is not None:
        message.last_output_at.FromNanoseconds(round(usage.last_output_at * 1e9))
    return message
