"""A state with a run in every phase, and their nodes."""

from dataclasses import replace

from coordinator.fleet_building import make_launch

from runyard.coordinator.core.effects import Effect, SaveNode, SaveRun, SaveTombstone
from runyard.coordinator.core.model import (
    Assigned,
    Finished,
    Node,
    NodeResources,
    Place,
    Queued,
    Ready,
    Run,
    Running,
    Starting,
    Stopping,
    StopRequest,
    Times,
    Tombstone,
)
from runyard.coordinator.core.requirements.labels import label_is
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.requirements.resources import Resources
from runyard.v1 import fleet_pb2, run_pb2

PLACE = Place("node-a", "default")
REFUSED_BY = (("node-b", "no room: 'ü'"), ("node-c", ""))

OUTCOME = run_pb2.Outcome(
    kind=run_pb2.OUTCOME_KIND_FAILED,
    exit_code=1,
    message="exited with code 1",
    stderr_tail="Traceback: ü\n",
    peak_rss_bytes=123_456_789,
)

PICKY = CompiledRequirements(
    cluster="east", node="node-a", labels=(label_is("gpu", "a100"), label_is("zone", "")), driver="docker"
)


def make_run(run_id: str, launched: float = 1_000.0) -> Run:
    """A run that was just launched; deadlines count from 0."""
    return Run(make_launch(run_id), 0, Queued(), Times(launched=launched), queued_since=0.0, since=0.0)


def in_every_phase() -> dict[str, Run]:
    """A run in every phase, and in every variant of one, by run ID."""
    times = Times(1_000.5, 1_001.5, 1_002.5, 1_003.5)
    user = StopRequest("a user stopped it", run_pb2.OUTCOME_KIND_STOPPED)
    late = StopRequest("too late", run_pb2.OUTCOME_KIND_TIMED_OUT)
    base = make_run("any")
    runs = {
        "queued": base,
        "queued-again": replace(base, refused_by=REFUSED_BY, attempt=2),
        "queued-picky": replace(
            base,
            launch=make_launch(requirements=PICKY, grace=0.25, max_queue_time=60.0, start_timeout=1.5),
        ),
        "assigned": replace(
            base, phase=Assigned(PLACE), refused_by=REFUSED_BY, times=Times(1_000.0, 1_001.0)
        ),
        "starting": replace(base, phase=Starting(PLACE)),
        "running": replace(base, phase=Running(PLACE, 4_194_304), refused_by=REFUSED_BY, attempt=7),
        "stopping": replace(base, phase=Stopping(PLACE), stop=user),
        "stopping-worker": replace(base, phase=Stopping(PLACE, 41), stop=late),
        "finished": replace(base, phase=Finished(OUTCOME, PLACE), times=times),
        "finished-nowhere": replace(base, phase=Finished(OUTCOME, None), stop=user),
        "finished-settled": replace(base, phase=Finished(OUTCOME, PLACE), reported=True),
        "adopted": replace(base, phase=Running(PLACE, 41), launch=replace(base.launch, digest="")),
    }
    return {run_id: _named(run, run_id) for run_id, run in runs.items()}


def _named(run: Run, run_id: str) -> Run:
    spec = run_pb2.LaunchSpec()
    spec.CopyFrom(run.launch.spec)
    spec.run_id = run_id
    return replace(run, launch=replace(run.launch, run_id=run_id, spec=spec))


def make_node(node_id: str = "node-a", session: int = 1, heard: float = 0.0) -> Node:
    """A node in session."""
    return Node(
        node_id=node_id,
        cluster="default",
        installation=f"installation of {node_id}",
        boot_id="boot-1",
        epoch=3,
        capacity=NodeResources(
            labels=(("gpu", "a100"), ("zone", "1")),
            drivers=("process", "docker"),
            taints=("gpu=only",),
            resources=Resources.of({"slots": 4, "memory": 1 << 35}),
            reserved=Resources.of({"memory": 1 << 30}),
        ),
        facts=fleet_pb2.NodeFacts(hostname=f"{node_id}.example", cpu_count=8),
        liveness=Ready(session, heard),
        last_heard_wall=1_700_000_000.25,
    )


def whole_state() -> list[Effect]:
    """The effects that write everything above."""
    return [
        *(SaveRun(run, "launched") for run in in_every_phase().values()),
        SaveNode(make_node()),
        SaveTombstone("buried", Tombstone("changed my mind: ü", 1_234.5)),
    ]
