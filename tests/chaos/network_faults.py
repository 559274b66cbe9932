"""Networks that fail without a word."""

import time
from collections.abc import Sequence
from functools import partial

from chaos.chaos_cluster import Tempo, seconds_until
from chaos.load import NODE_LOST, STOPPED
from chaos.network import BOTH, Direction
from chaos.scene import Fault, Scene
from harness.waiting import wait_until

from runyard.v1 import run_pb2

NODE, OTHER = "alpha", "beta"

DEFAULT = Tempo(heartbeat_interval=5.0, lease=15.0)
"""The rhythm as it comes; but the coordinator, just started, shall not wait for a minute before it judges."""

STOP_AFTER = 3.0


def partition(scene: Scene, directions: Sequence[Direction] = BOTH, seconds: float = 10.0) -> None:
    """Nothing passes; runs end and are launched meanwhile."""
    cluster, load = scene.cluster, scene.load
    wire = scene.network.wires[NODE]
    with load.flowing(per_second=1.0):
        lasting, ending = load.busy(120, may_end=[STOPPED]), load.busy(1.0)
        wire.cut(directions)
        taken = seconds_until(lambda: cluster.is_silent(NODE), "the node is unreachable")
        scene.detections.append(taken)
        wait_until(lambda: cluster.ledger.life(ending).succeeded, "a worker ends meanwhile")
        time.sleep(max(0.0, seconds - taken))
        run = cluster.run(lasting)
        assert (run.phase, run.unreachable) == (run_pb2.PHASE_RUNNING, True), "unknown is not dead"
        wire.mend()
        cluster.wait_ready(NODE)
    assert cluster.ledger.is_alive(lasting), "it was not touched"
    load.stop(lasting)


def flap(scene: Scene, times: int = 10) -> None:
    """The link goes and comes, about as fast as sessions are made."""
    cluster, load = scene.cluster, scene.load
    wire = scene.network.wires[NODE]
    with load.flowing():
        for _ in range(times):
            wire.cut()
            time.sleep(scene.chance.uniform(0.3, 1.5))
            wire.mend()
            time.sleep(scene.chance.uniform(0.3, 1.5))
        cluster.wait_ready(NODE)


def lose_packets(scene: Scene, share: float = 0.3, seconds: float = 15.0) -> None:
    """A good part of all packets is lost, both ways."""
    load = scene.load
    wire = scene.network.wires[NODE]
    with load.flowing():
        wire.lose(share)
        time.sleep(seconds)
        wire.mend()
    scene.cluster.wait_ready(NODE)


def delay(scene: Scene, seconds: float = 15.0) -> None:
    """Everything arrives, but late: for each heartbeat more than one is under way."""
    cluster, load = scene.cluster, scene.load
    cluster.kill(cluster.agents[NODE])
    cluster.slow_down(0.3, jitter=0.3)
    cluster.start_agent(NODE)
    epoch = cluster.node(NODE).epoch
    with load.flowing():
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert cluster.is_ready(NODE), "late is not silent"
            time.sleep(0.1)
    assert cluster.node(NODE).epoch == epoch, "one session lasted all the time"


def partition_with_stop_after(scene: Scene) -> None:
    """A node is cut off and its agent dies: the shim ends what must not outlive the contact, and only that.

    When the coordinator gives the run up, it is resumed elsewhere: its first worker must be over by then.
    """
    cluster, load = scene.cluster, scene.load
    wire = scene.network.wires[NODE]
    with load.flowing(per_second=1.0):
        kept = load.busy(30, node=NODE)
        fenced = load.launch(60, node=NODE, stop_after=STOP_AFTER, may_end=[NODE_LOST, STOPPED])
        load.wait_busy(fenced)
        wire.cut()
        cluster.kill(cluster.agents[NODE])
        seconds_until(lambda: not cluster.ledger.is_alive(fenced), "the shim stops the worker")
        assert cluster.run(fenced).phase == run_pb2.PHASE_RUNNING, "only a proof ends a run"
        scene.detections.append(seconds_until(lambda: cluster.is_over(fenced), "the coordinator knows"))
        assert cluster.run(fenced).outcome.kind == NODE_LOST
        load.resume(fenced, 1.0)
        assert cluster.run(kept).phase == run_pb2.PHASE_RUNNING, "unknown is not dead"
        wire.mend()
        cluster.start_agent(NODE)
    wait_until(partial(cluster.is_over, fenced), cluster.describe)


FAULTS = (
    Fault("partition, silent, both ways", "node unreachable", partition, tries=2, needs_network=True),
    Fault(
        "partition, nothing reaches the node",
        "node unreachable",
        partial(partition, directions=[Direction.TO_NODE]),
        needs_network=True,
    ),
    Fault(
        "partition, nothing leaves the node",
        "node unreachable",
        partial(partition, directions=[Direction.FROM_NODE]),
        needs_network=True,
    ),
    Fault(
        "partition, default settings",
        "node unreachable",
        partial(partition, seconds=20.0),
        needs_network=True,
        tempo=DEFAULT,
    ),
    Fault("link flaps ten times", "", flap, needs_network=True),
    Fault("30 % of all packets lost", "", lose_packets, needs_network=True),
    Fault("0.6 to 1.2 s for a round trip", "", delay),
    Fault(
        "partition, agent dead, stop_after=3s",
        "run given up",
        partition_with_stop_after,
        needs_network=True,
        nodes=(NODE, OTHER),
    ),
)
