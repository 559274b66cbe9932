"""Processes that are killed or frozen. What kills them at a step is `runyard.common.service.failpoints`."""

import contextlib
import signal
import time

from chaos.chaos_cluster import SESSION_LOST, ChaosCluster, kill_pid, seconds_until
from chaos.load import EXIT_UNKNOWN, FAILED, START_FAILED, STOPPED
from chaos.scene import Fault, Scene
from harness.processes import Child
from harness.waiting import wait_until

from runyard.v1 import run_pb2

NODE = "alpha"

FAILPOINTS = (
    "agent.after_welcome",
    "agent.before_accept",
    "agent.after_accept",
    "agent.after_start",
    "agent.before_report_starting",
    "agent.before_report_running",
    "agent.before_report_stopping",
    "agent.before_report_finished",
    "agent.before_stop",
    "agent.after_stop",
    "agent.before_forget",
    "agent.after_forget",
    "coordinator.before_commit",
    "coordinator.after_commit",
    "coordinator.after_send",
)


def kill_worker(scene: Scene) -> None:
    """The worker of one run among many is killed."""
    cluster, load = scene.cluster, scene.load
    with load.flowing():
        run_id = load.busy(60, may_end=[FAILED])
        load.crowd()
        kill_pid(load.worker(run_id))
        scene.detections.append(seconds_until(lambda: cluster.is_over(run_id), "the run ends"))
    outcome = cluster.run(run_id).outcome
    assert (outcome.kind, outcome.signal) == (FAILED, 9), outcome


def kill_shim(scene: Scene) -> None:
    """The shim of a run is killed; its worker goes on, and its end is seen."""
    cluster, load = scene.cluster, scene.load
    with load.flowing():
        load.crowd()
        run_id = load.busy(1.5)
        kill_pid(cluster.shim(run_id))
        wait_until(lambda: cluster.is_over(run_id), cluster.describe)


def kill_fork_server(scene: Scene) -> None:
    """The fork server is killed under its shims; another one takes the next run."""
    cluster, load = scene.cluster, scene.load
    with load.flowing():
        load.crowd()
        killed = cluster.fork_server(NODE)
        kill_pid(killed)
        scene.detections.append(
            seconds_until(lambda: cluster.fork_server(NODE) != killed, "another fork server is there")
        )
        load.busy(0.5)


def kill_agent(scene: Scene) -> None:
    """The agent is killed, stays away for a while in which runs end, and takes up everything anew."""
    cluster, load = scene.cluster, scene.load
    with load.flowing():
        load.crowd(seconds=3.0)
        ending = load.busy(0.5)
        cluster.kill(cluster.agents[NODE])
        scene.detections.append(seconds_until(lambda: not cluster.is_ready(NODE), "the node is suspect"))
        wait_until(lambda: cluster.ledger.life(ending).succeeded, "a worker ends while the agent is dead")
        cluster.start_agent(NODE)


def kill_coordinator(scene: Scene) -> None:
    """The coordinator is killed and comes back; launches wait for it, and nobody else does."""
    cluster, load = scene.cluster, scene.load
    with load.flowing():
        load.crowd(seconds=3.0)
        cluster.kill(cluster.coordinator)
        wait_until(lambda: SESSION_LOST in cluster.agents[NODE].output(), "the agent notices")
        cluster.start_coordinator()
        scene.detections.append(seconds_until(lambda: cluster.is_ready(NODE), "the node is back"))


def freeze_agent(scene: Scene, seconds: float = 30.0) -> None:
    """The agent is stopped for longer than its lease, but not its workers."""
    cluster, load = scene.cluster, scene.load
    with load.flowing(per_second=1.0):
        ending = load.busy(2.0)
        with cluster.frozen(cluster.agents[NODE]):
            taken = seconds_until(lambda: cluster.is_silent(NODE), "the node is unreachable")
            scene.detections.append(taken)
            wait_until(lambda: cluster.ledger.life(ending).succeeded, "a worker ends meanwhile")
            assert cluster.run(ending).phase == run_pb2.PHASE_RUNNING, "unknown is not dead"
            _pass_time(seconds - taken)
        cluster.wait_ready(NODE)


def freeze_coordinator(scene: Scene, seconds: float = 60.0, runs: int = 50) -> None:
    """The coordinator is stopped while many runs live, and wakes up long after all leases have run out."""
    cluster, load = scene.cluster, scene.load
    spread = [seconds * (0.3 + number / runs) for number in range(runs)]
    alive = [load.launch(length) for length in spread]
    load.wait_busy(*alive)
    before = cluster.agents[NODE].output().count(SESSION_LOST)
    with cluster.frozen(cluster.coordinator):
        taken = seconds_until(
            lambda: cluster.agents[NODE].output().count(SESSION_LOST) > before,
            "the agent gives the session up",
        )
        scene.detections.append(taken)
        _pass_time(seconds - taken)
    cluster.wait_ready(NODE)
    for run_id in alive:
        run = cluster.run(run_id)
        assert not run.unreachable, run
    with load.flowing():
        load.busy(0.5)


def kill_at_every_step(scene: Scene) -> None:
    """Each time another step of the protocol is the last that the agent or the coordinator takes."""
    cluster, load = scene.cluster, scene.load
    with load.flowing(per_second=2.0):
        for point in FAILPOINTS:
            stopped = load.busy(30, may_end=[STOPPED])
            if point.startswith("coordinator"):
                cluster.kill(cluster.coordinator)
                cluster.begin_coordinator(RUNYARD_FAILPOINT=point)
                _wait_for_death(cluster, cluster.coordinator, point)
                cluster.start_coordinator()
                load.stop(stopped)
            else:
                cluster.kill(cluster.agents[NODE])
                cluster.begin_agent(NODE, RUNYARD_FAILPOINT=point)
                load.stop(stopped)
                _wait_for_death(cluster, cluster.agents[NODE], point)
                cluster.start_agent(NODE)


def _wait_for_death(cluster: ChaosCluster, part: Child, point: str) -> None:
    wait_until(lambda: not part.alive, lambda: f"{point} was not reached\n{cluster.describe()}")
    assert part.process.returncode == -signal.SIGKILL, part.tail()


def kill_at_random(scene: Scene, launches: int = 200) -> None:
    """Every part is killed again and again while runs are launched."""
    cluster, load = scene.cluster, scene.load
    victims = ("agent", "fork server", "shim", "worker", "coordinator")
    may_end = (EXIT_UNKNOWN, FAILED, START_FAILED)
    with load.flowing(per_second=12.0, may_end=may_end):
        while len(load.launches) < launches:
            _pass_time(scene.chance.uniform(0.2, 1.0))
            _kill_one(scene, scene.chance.choice(victims))
    cluster.wait_ready(NODE)


def _kill_one(scene: Scene, victim: str) -> None:
    cluster = scene.cluster
    match victim:
        case "agent":
            cluster.kill(cluster.agents[NODE])
            cluster.begin_agent(NODE)
        case "coordinator":
            cluster.kill(cluster.coordinator)
            cluster.start_coordinator()
        case "fork server":
            kill_pid(cluster.fork_server(NODE))
        case _:
            _kill_around_a_worker(scene, victim)


def _kill_around_a_worker(scene: Scene, victim: str) -> None:
    cluster = scene.cluster
    live = [run for run in cluster.runs().values() if run.phase == run_pb2.PHASE_RUNNING]
    if not live:
        return
    run = scene.chance.choice(live)
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it may have ended meanwhile
        kill_pid(run.pid if victim == "worker" else cluster.shim(run.run_id))


def _pass_time(seconds: float) -> None:
    """Lets a fault last. Nothing is awaited: the time itself is the fault."""
    time.sleep(max(0.0, seconds))


FAULTS = (
    Fault("kill -9 of a worker", "run failed", kill_worker, tries=5),
    Fault("kill -9 of a shim", "", kill_shim, tries=5),
    Fault("kill -9 of the fork server", "another one runs", kill_fork_server, tries=5),
    Fault("kill -9 of the agent", "node suspect", kill_agent, tries=3),
    Fault("kill -9 of the coordinator", "node back after restart", kill_coordinator, tries=3),
    Fault("kill -9 at every step of the protocol", "", kill_at_every_step),
    Fault("agent frozen for 30 s", "node unreachable", freeze_agent),
    Fault("coordinator frozen for 60 s, 50 runs", "agent gives up", freeze_coordinator, slots=60),
    Fault("random kills, 200 launches", "", kill_at_random, slots=16),
)
