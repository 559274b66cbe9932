"""Events of agents: Hello, heartbeats, reports, rejections and the end of a session."""

from collections.abc import Iterable
from dataclasses import replace

from runyard.common.defaults import PROTOCOL_VERSION
from runyard.common.protobuf_time import to_duration
from runyard.coordinator.core.agent_reports import AttemptStatus, Heartbeat, Hello
from runyard.coordinator.core.errors import NodeIdInUse, NodeRefused
from runyard.coordinator.core.events.agent_messages import assign, stop
from runyard.coordinator.core.events.attempt_end import finish, reschedule
from runyard.coordinator.core.events.on_attempt_status import apply_status
from runyard.coordinator.core.events.on_warm_servers import with_warmth
from runyard.coordinator.core.events.place_waiting import place_waiting
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.leases import hear, suspect
from runyard.coordinator.core.model import (
    Assigned,
    Instant,
    Node,
    Open,
    Ready,
    Run,
    Running,
    Starting,
    Stopping,
)
from runyard.v1 import agent_pb2, run_pb2

LONGEST_ABSENCE = 3600.0
"""Seconds for which an agent that says goodbye is trusted at most."""

REPEAT_AFTER = 2.0
"""Seconds after which a command that a heartbeat does not reflect is sent again."""


def on_hello(fleet: Fleet, now: Instant, session: int, hello: Hello) -> None:
    """Event: an agent opens a session -> Welcome, and both sides agree on the node's attempts.

    Args:
        session: Number of the session, never used before.

    Raises:
        NodeRefused: No common protocol version.
        NodeIdInUse: Another agent holds the node ID, or left runs under it.
    """
    before = fleet.nodes.get(hello.node_id)
    _require_welcome(fleet, before, hello)
    if before is not None:
        fleet.end_session(before, "superseded by a new session of the same agent")
    node = with_warmth(_node(fleet, before, hello, now, session), hello.warm_servers)
    fleet.save_node(node)
    welcome = agent_pb2.Welcome(
        node_epoch=node.epoch,
        protocol=PROTOCOL_VERSION,
        heartbeat_interval=to_duration(fleet.leases.interval(len(fleet.nodes))),
        lease=to_duration(fleet.leases.lease(len(fleet.nodes))),
    )
    fleet.send(node.node_id, agent_pb2.SessionResponse(welcome=welcome))
    rebooted = before is not None and before.boot_id != hello.boot_id
    restored = hello.last_epoch < node.confirmed_epoch
    _hear_all(fleet, now, node, hello.attempts)
    listed = _phases(hello.attempts)
    for run in fleet.live_on(node.node_id):
        phase_there = listed.get((run.run_id, run.attempt))
        if phase_there is None and isinstance(run.phase, Starting | Running):
            _lost_at_hello(fleet, now, run, rebooted, restored)
        else:
            _repeat(fleet, run, phase_there)
    place_waiting(fleet, now)


def _require_welcome(fleet: Fleet, before: Node | None, hello: Hello) -> None:
    if not hello.protocol_min <= PROTOCOL_VERSION <= hello.protocol_max:
        raise NodeRefused(
            f"this coordinator speaks protocol {PROTOCOL_VERSION}, the agent {hello.protocol_min} to "
            f"{hello.protocol_max}; upgrade the older of the two"
        )
    if before is None or before.installation == hello.installation_id:
        return
    if before.is_ready:
        raise NodeIdInUse(
            f"node ID {hello.node_id!r} is in use by a live agent on {_host(before)}; "
            "give this agent another node_id"
        )
    if live := fleet.live_on(hello.node_id):
        raise NodeIdInUse(
            f"node ID {hello.node_id!r} belongs to another installation on {_host(before)} "
            f"that still has {len(live)} unfinished run(s); bring that agent back with its state directory, "
            "or give this agent another node_id"
        )


def _host(node: Node) -> str:
    return node.facts.hostname or "another host"


def _node(fleet: Fleet, before: Node | None, hello: Hello, now: Instant, session: int) -> Node:
    return Node(
        service=before.service if before else Open(),
        confirmed_epoch=before.confirmed_epoch if before else 0,
        node_id=hello.node_id,
        cluster=hello.cluster,
        installation=hello.installation_id,
        boot_id=hello.boot_id,
        epoch=before.epoch + 1 if before else 1,
        capacity=hello.capacity,
        facts=hello.facts,
        pressures=hello.pressures,
        liveness=Ready(session, now.monotonic),
        last_heard_wall=now.wall,
    )


def _lost_at_hello(fleet: Fleet, now: Instant, run: Run, rebooted: bool, restored: bool) -> None:
    """End a run that the node had on its disk and no longer has."""
    if restored:
        kind = run_pb2.OUTCOME_KIND_EXIT_UNKNOWN
        message = "the node's disk was restored from an older image, without the record of the attempt"
    elif rebooted:
        kind = run_pb2.OUTCOME_KIND_NODE_LOST
        message = "the node rebooted and its worker is gone"
    else:
        kind = run_pb2.OUTCOME_KIND_EXIT_UNKNOWN
        message = "the agent came back without a record of the attempt; was its state directory lost?"
    finish(fleet, now, run, run_pb2.Outcome(kind=kind, message=message))


def on_heartbeat(fleet: Fleet, now: Instant, node_id: str, session: int, heartbeat: Heartbeat) -> None:
    """Event: a heartbeat -> the lease is renewed, and commands that it does not reflect are repeated."""
    node = _in_session(fleet, node_id, session)
    if node is None:
        return
    node = replace(hear(node, now), load=heartbeat.load, heartbeat=heartbeat.sequence)
    node = with_warmth(node, heartbeat.warm_servers)
    node = replace(node, pressures=heartbeat.pressures)
    # The agent writes the epoch to its disk before its first heartbeat. The next Hello saves it here.
    node = replace(node, confirmed_epoch=node.epoch)
    if heartbeat.capacity is not None:
        node = replace(node, capacity=heartbeat.capacity)
    fleet.put_node(node)
    ack = agent_pb2.HeartbeatAck(sequence=heartbeat.sequence)
    fleet.send(node_id, agent_pb2.SessionResponse(heartbeat_ack=ack))
    _hear_all(fleet, now, node, heartbeat.attempts)
    listed = _phases(heartbeat.attempts)
    for run in fleet.live_on(node_id):
        # A heartbeat may be older than the last command: absence proves nothing here, so only repeat.
        if now.monotonic - run.since >= REPEAT_AFTER:
            _repeat(fleet, run, listed.get((run.run_id, run.attempt)))
    place_waiting(fleet, now)


def _repeat(fleet: Fleet, run: Run, phase_there: run_pb2.Phase.ValueType | None) -> None:
    """Repeat the run's last command if the agent's attempts do not reflect it."""
    never_arrived = isinstance(run.phase, Assigned) and phase_there is None
    waits_there = isinstance(run.phase, Assigned | Starting) and phase_there == run_pb2.PHASE_ASSIGNED
    if never_arrived or waits_there:
        assign(fleet, run)
    elif isinstance(run.phase, Stopping) and phase_there != run_pb2.PHASE_STOPPING:
        stop(fleet, run)


def _phases(
    statuses: Iterable[AttemptStatus],
) -> dict[tuple[str, int], run_pb2.Phase.ValueType]:
    return {(status.run_id, status.attempt): status.phase for status in statuses}


def on_status(fleet: Fleet, now: Instant, node_id: str, session: int, status: AttemptStatus) -> None:
    """Event: an agent reports one attempt -> its run follows."""
    node = _in_session(fleet, node_id, session)
    if node is not None:
        fleet.put_node(hear(node, now))
        apply_status(fleet, now, node, status)
        place_waiting(fleet, now)


def on_rejection(
    fleet: Fleet, now: Instant, node_id: str, session: int, rejection: agent_pb2.Rejection
) -> None:
    """Event: a node rejects an assignment -> the run is rescheduled on another node."""
    run = fleet.runs.get(rejection.run_id)
    if _in_session(fleet, node_id, session) is None or run is None:
        return
    if run.attempt != rejection.attempt or run.place is None or run.place.node != node_id:
        return
    if isinstance(run.phase, Stopping):
        outcome = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_STOPPED, message="stopped before it started")
        finish(fleet, now, run, outcome)
    elif isinstance(run.phase, Assigned):
        kind = run_pb2.OUTCOME_KIND_START_FAILED
        outcome = run_pb2.Outcome(kind=kind, message=rejection.reason, cause=rejection.cause)
        reschedule(fleet, now, run, "refused", outcome)
    place_waiting(fleet, now)


def on_disconnect(fleet: Fleet, node_id: str, session: int) -> None:
    """Event: a session broke -> the node is suspect and takes no new runs; its runs stay."""
    node = _in_session(fleet, node_id, session)
    if node is not None:
        fleet.put_node(suspect(node))


def on_goodbye(fleet: Fleet, now: Instant, node_id: str, session: int, back_within: float) -> None:
    """Event: an agent says goodbye -> its silence is ignored for `back_within` seconds."""
    node = _in_session(fleet, node_id, session)
    if node is not None:
        back_by = now.monotonic + min(back_within, LONGEST_ABSENCE)
        fleet.put_node(suspect(hear(node, now), back_by))


def _in_session(fleet: Fleet, node_id: str, session: int) -> Node | None:
    """The node, unless the message is of a session that is over."""
    node = fleet.nodes.get(node_id)
    if node is None or not isinstance(node.liveness, Ready) or node.liveness.session != session:
        return None
    return node


def _hear_all(fleet: Fleet, now: Instant, node: Node, statuses: Iterable[AttemptStatus]) -> None:
    for status in statuses:
        apply_status(fleet, now, node, status)
        run = fleet.runs.get(status.run_id)
        if run is not None and run.is_live and run.attempt == status.attempt and status.usage is not None:
            fleet.usage[run.run_id] = status.usage
