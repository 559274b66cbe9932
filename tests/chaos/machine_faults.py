"""Machines that lose their power, their disk space or their sense of time."""

import contextlib
import importlib.util
import os
import time
import uuid
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from chaos.chaos_cluster import Tempo, kill_pid, seconds_until
from chaos.load import NODE_LOST, START_FAILED
from chaos.scene import Fault, Scene
from coordinator.store.small_disk import fill_up, mounted
from harness.waiting import wait_until

from runyard.v1 import fleet_pb2, run_pb2

NODE, OTHER = "alpha", "beta"

STOP_AFTER = 3.0

PATIENT = Tempo(heartbeat_interval=1.0, lease=15.0)
"""For processes under libfaketime, which has gRPC wait up to some seconds for nothing."""


def power_off(scene: Scene) -> None:
    """A node and everything on it is gone at once, without a packet; later its machine boots again.

    What had `stop_after` is resumed elsewhere meanwhile; what had not is over when the node says that it
    rebooted, and not before.
    """
    cluster, load = scene.cluster, scene.load
    kept = [load.launch(60, node=NODE, may_end=[NODE_LOST]) for _ in range(3)]
    fenced = load.launch(60, node=NODE, stop_after=STOP_AFTER, may_end=[NODE_LOST])
    load.wait_busy(*kept, fenced)
    with load.flowing(per_second=1.0):
        _pull_the_plug(scene, NODE)
        scene.detections.append(seconds_until(lambda: cluster.is_silent(NODE), "the node is unreachable"))
        wait_until(partial(cluster.is_over, fenced), cluster.describe)
        assert "stop_after" in cluster.run(fenced).outcome.message
        load.resume(fenced, 1.0)
        assert all(cluster.run(run_id).phase == run_pb2.PHASE_RUNNING for run_id in kept), (
            "unknown is not dead"
        )
        cluster.start_agent(NODE, boot_id=str(uuid.uuid4()))
        taken = seconds_until(lambda: all(map(cluster.is_over, kept)), "the runs are over")
        assert taken < 1.0, f"a reboot is a proof, but took {taken:.1f} s"
    for run_id in kept:
        outcome = cluster.run(run_id).outcome
        assert (outcome.kind, "rebooted" in outcome.message) == (NODE_LOST, True), outcome


def power_off_and_fence(scene: Scene) -> None:
    """A node is gone for good, and an operator vouches for it: its runs may go on elsewhere at once."""
    cluster, load = scene.cluster, scene.load
    kept = [load.launch(60, node=NODE, may_end=[NODE_LOST]) for _ in range(3)]
    load.wait_busy(*kept)
    _pull_the_plug(scene, NODE)
    wait_until(partial(cluster.is_silent, NODE), cluster.describe)
    assert cluster.operator.fence_node(NODE, reason="its plug is out").runs_ended == len(kept)
    scene.detections.append(seconds_until(lambda: all(map(cluster.is_over, kept)), "the runs are over"))
    for run_id in kept:
        load.resume(run_id, 1.0)
    cluster.start_agent(NODE, boot_id=str(uuid.uuid4()))


def fill_disk_of_agent(scene: Scene) -> None:
    """The node's disk is full while runs end there and others are to start."""
    cluster, load = scene.cluster, scene.load
    ending = [load.busy(1.5) for _ in range(3)]
    filler = fill_up(_disk_of(scene, NODE))
    refused = load.launch(0.5, may_end=[START_FAILED])
    wait_until(lambda: all(cluster.ledger.life(run).succeeded for run in ending), "workers end meanwhile")
    time.sleep(1.0)
    filler.unlink()
    wait_until(lambda: all(map(cluster.is_over, ending)), cluster.describe)
    if cluster.run(refused).outcome.kind == START_FAILED:
        assert not cluster.ledger.life(refused).starts, "what could not start never ran"
    load.busy(0.5)


def fill_disk_of_coordinator(scene: Scene) -> None:
    """The coordinator's disk is full while runs end, and launches are refused until there is room again."""
    cluster, load = scene.cluster, scene.load
    ending = [load.busy(1.5) for _ in range(3)]
    filler = fill_up(_disk_of(scene, "coordinator"))
    with load.flowing():
        wait_until(lambda: all(cluster.ledger.life(run).succeeded for run in ending), "workers end meanwhile")
        time.sleep(1.0)
        filler.unlink()
        wait_until(lambda: all(map(cluster.is_over, ending)), cluster.describe)
        load.busy(0.5)


def step_clock(scene: Scene) -> None:
    """The wall clocks of coordinator and node jump by hours, forwards and back."""
    cluster, load = scene.cluster, scene.load
    clock = Path(cluster.extra["FAKETIME_TIMESTAMP_FILE"])
    with load.flowing():
        lasting = load.launch(25.0, stop_after=PATIENT.lease)
        load.wait_busy(lasting)
        for step in ("+3600", "-7200", "+0"):
            clock.write_text(step)
            until = time.monotonic() + 3.0
            while time.monotonic() < until:
                state = cluster.node(NODE).state
                assert state == fleet_pb2.NODE_STATE_READY, fleet_pb2.NodeState.Name(state)
                time.sleep(0.05)
        assert cluster.ledger.is_alive(lasting)


def _pull_the_plug(scene: Scene, node: str) -> None:
    wire = scene.network.wires[node]
    wire.cut()
    while pids := wire.pids():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                kill_pid(pid)
        scene.cluster.agents[node].process.poll()
    scene.network.unplug(node)


def _small_disk_of(name: str, stack: ExitStack, folder: Path) -> dict[str, str]:
    stack.enter_context(mounted(folder / name, "size=24m,mode=700"))
    return {}


def _disk_of(scene: Scene, name: str) -> Path:
    return scene.cluster.folder / name


def _why_no_disk() -> str:
    return "" if os.geteuid() == 0 else "mounting a disk needs root; run these tests as root in a container"


def _changeable_clock(stack: ExitStack, folder: Path) -> dict[str, str]:
    package = importlib.util.find_spec("libfaketime")
    assert package is not None
    assert package.origin is not None
    library = Path(package.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    clock = folder / "clock"
    clock.write_text("+0")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _why_no_clock() -> str:
    found = importlib.util.find_spec("libfaketime")
    return "" if found else "a clock that can be set needs libfaketime; pip install libfaketime"


FAULTS = (
    Fault("power-off, then reboot", "node unreachable", power_off, needs_network=True, nodes=(NODE, OTHER)),
    Fault(
        "power-off, then node fence",
        "runs over after fence",
        power_off_and_fence,
        needs_network=True,
        nodes=(NODE, OTHER),
    ),
    Fault(
        "disk of the agent full",
        "",
        fill_disk_of_agent,
        prepare=partial(_small_disk_of, NODE),
        obstacle=_why_no_disk,
    ),
    Fault(
        "disk of the coordinator full",
        "",
        fill_disk_of_coordinator,
        prepare=partial(_small_disk_of, "coordinator"),
        obstacle=_why_no_disk,
    ),
    Fault(
        "clocks step by hours",
        "",
        step_clock,
        prepare=_changeable_clock,
        obstacle=_why_no_clock,
        tempo=PATIENT,
    ),
)
