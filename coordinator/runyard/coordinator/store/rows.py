"""Conversion of runs and nodes to rows and back."""

from dataclasses import asdict
from typing import Any, assert_never

from pydantic import TypeAdapter

from runyard.coordinator.core.model import (
    Assigned,
    Cordoned,
    Draining,
    Finished,
    Launch,
    Node,
    NodeResources,
    Open,
    Phase,
    Place,
    Queued,
    Run,
    Running,
    Service,
    Starting,
    Stopping,
    StopRequest,
    Suspect,
    Times,
)
from runyard.coordinator.core.requirements.requirements import (
    CompiledRequirements,
    RequirementLayer,
    TimeLimits,
)
from runyard.coordinator.core.routing.rules import Route
from runyard.v1 import fleet_pb2, run_pb2

Row = dict[str, Any]

_REQUIREMENTS = TypeAdapter(CompiledRequirements)
_LAYERS = TypeAdapter(tuple[RequirementLayer, ...])
_ROUTE = TypeAdapter(Route)
_OFFER = TypeAdapter(NodeResources)


def phase_name(phase: Phase) -> str:
    """Return the name of a phase, as in the database and in texts for people."""
    return type(phase).__name__.lower()


def run_row(run: Run) -> Row:
    """Return the row of a run."""
    outcome = run.phase.outcome.SerializeToString() if isinstance(run.phase, Finished) else None
    return {
        "run_id": run.run_id,
        "attempt": run.attempt,
        "resume_number": run.launch.resume_number,
        "deployment": run.launch.deployment,
        "job": run.launch.job,
        "location": run.launch.location,
        "requirements": _REQUIREMENTS.dump_python(run.launch.requirements, mode="json"),
        "layers": _layer_rows(run.launch.layers),
        "route": _ROUTE.dump_python(run.launch.route, mode="json"),
        "repository": run.launch.repository,
        "priority": run.launch.priority,
        "share": run.launch.share,
        "avoided": run.avoided,
        "launched_by": run.launch.launched_by,
        "policies": asdict(run.launch.time_limits),
        "digest": run.launch.digest,
        "spec": run.launch.spec.SerializeToString(),
        "phase": phase_name(run.phase),
        "phase_data": {**_phase_data(run.phase), "refused_by": run.refused_by},
        "outcome": outcome,
        "stop": asdict(run.stop) if run.stop else None,
        "times": asdict(run.times),
        "reported": run.reported,
        "snapshot_id": run.launch.spec.job_snapshot_id,
    }


def run_of(row: Row, since: float) -> Run:
    """Return the run of a row. Its deadlines count from `since` (monotonic, seconds)."""
    launch = Launch(
        run_id=row["run_id"],
        resume_number=row["resume_number"],
        deployment=row["deployment"],
        job=row["job"],
        location=row["location"],
        requirements=_REQUIREMENTS.validate_python(row["requirements"]),
        time_limits=TimeLimits(**row["policies"]),
        digest=row["digest"],
        spec=run_pb2.LaunchSpec.FromString(row["spec"]),
        repository=row["repository"],
        layers=_layers_of(row["layers"]),
        route=_ROUTE.validate_python(row["route"]),
        priority=row["priority"],
        share=row["share"],
        launched_by=row["launched_by"],
    )
    return Run(
        launch=launch,
        attempt=row["attempt"],
        phase=_phase_of(row["phase"], row["phase_data"], row["outcome"]),
        times=Times(**row["times"]),
        queued_since=since,
        since=since,
        stop=StopRequest(**row["stop"]) if row["stop"] else None,
        reported=row["reported"],
        avoided=tuple(row["avoided"]),
        refused_by=_pairs(row["phase_data"].get("refused_by", [])),
    )


def _layer_rows(layers: tuple[RequirementLayer, ...]) -> list[Row]:
    """Return the stored form, in which the requirements of a layer are a mapping named `wants`."""
    rows: list[Row] = _LAYERS.dump_python(layers, mode="json")
    return [{"source": row.pop("source"), "wants": row} for row in rows]


def _layers_of(rows: list[Row]) -> tuple[RequirementLayer, ...]:
    return _LAYERS.validate_python([{"source": row["source"], **row["wants"]} for row in rows])


def _phase_data(phase: Phase) -> Row:
    match phase:
        case Queued():
            return {}
        case Assigned(place=place) | Starting(place=place):
            return {"place": asdict(place)}
        case Running(place=place, pid=pid) | Stopping(place=place, pid=pid):
            return {"place": asdict(place), "pid": pid}
        case Finished(place=place_or_none, pid=pid):
            return {"place": asdict(place_or_none), "pid": pid} if place_or_none else {}
        case _:
            assert_never(phase)


def _phase_of(name: str, data: Row, outcome: bytes | None) -> Phase:
    place = Place(**data["place"]) if "place" in data else None
    if name == "queued":
        return Queued()
    if name == "finished":
        return Finished(run_pb2.Outcome.FromString(outcome or b""), place, data.get("pid", 0))
    if place is None:
        raise ValueError(f"a run in phase {name!r} has no place: the database was changed by hand")
    match name:
        case "assigned":
            return Assigned(place)
        case "starting":
            return Starting(place)
        case "running":
            return Running(place, data["pid"])
        case "stopping":
            return Stopping(place, data["pid"])
        case _:
            raise ValueError(f"unknown phase {name!r} in the database")


def _pairs(value: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((key, item) for key, item in value)


def node_row(node: Node) -> Row:
    """Return the row of a node: the part of its state that must survive a restart."""
    return {
        "node_id": node.node_id,
        "cluster": node.cluster,
        "installation": node.installation,
        "boot_id": node.boot_id,
        "epoch": node.epoch,
        "offer": _OFFER.dump_python(node.capacity, mode="json"),
        "facts": node.facts.SerializeToString(),
        "last_heard": node.last_heard_wall,
        "confirmed_epoch": node.confirmed_epoch,
        "service": _service_data(node.service),
    }


def _service_data(service: Service) -> Row:
    match service:
        case Open():
            return {"kind": "open"}
        case Cordoned():
            return {"kind": "cordoned"}
        case Draining(deadline=deadline):
            return {"kind": "draining", "deadline": deadline}


def _service_of(data: Row, since: float) -> Service:
    match data["kind"]:
        case "open":
            return Open()
        case "cordoned":
            return Cordoned()
        case "draining":
            return Draining(data["deadline"], since)
        case kind:
            raise ValueError(f"unknown service {kind!r} in the database")


def node_of(row: Row, since: float) -> Node:
    """Return the node of a row, not connected since `since` (monotonic, seconds)."""
    return Node(
        node_id=row["node_id"],
        cluster=row["cluster"],
        installation=row["installation"],
        boot_id=row["boot_id"],
        epoch=row["epoch"],
        capacity=_OFFER.validate_python(row["offer"]),
        facts=fleet_pb2.NodeFacts.FromString(row["facts"]),
        liveness=Suspect(since),
        last_heard_wall=row["last_heard"],
        confirmed_epoch=row["confirmed_epoch"],
        service=_service_of(row["service"], since),
    )
