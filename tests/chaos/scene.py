"""A cluster under load, where one fault is inflicted, and the report of it."""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from chaos.chaos_cluster import SHORT, ChaosCluster, Tempo, open_cluster
from chaos.load import Load
from chaos.network import Network, networked, why_no_network
from chaos.verdict import Verdict, judge


@dataclass
class Scene:
    """Where a fault is inflicted.

    Attributes:
        cluster: A coordinator and the agents that the fault asks for, all in session.
        load: The runs there.
        chance: For what is left to chance; the same for the same seed.
        detections: Seconds from a fault until somebody noticed, one for each try.
    """

    cluster: ChaosCluster
    load: Load
    chance: random.Random
    detections: list[float] = field(default_factory=list)

    @property
    def network(self) -> Network:
        """The scene's own network."""
        assert self.cluster.network is not None, "this fault needs a network"
        return self.cluster.network


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        name: What happens.
        noticed: What the time in `detections` is the time of; empty if nobody is to notice.
        inflict: Does it once, under load, and leaves everything mended.
        tries: How often.
        needs_network: Whether the cluster is in namespaces.
        prepare: Readies the folder before anything runs there, and says what the coordinator and the agents
            are to have in their environment.
        obstacle: Why the fault cannot be made on this machine; empty if it can.
        nodes: Which agents there are.
        slots: How many workers each may have at once.
        tempo: The coordinator's settings.
    """

    name: str
    noticed: str
    inflict: Callable[[Scene], None]
    tries: int = 1
    needs_network: bool = False
    prepare: Callable[[ExitStack, Path], dict[str, str]] = lambda stack, folder: {}
    obstacle: Callable[[], str] = lambda: ""
    nodes: tuple[str, ...] = ("alpha",)
    slots: int = 8
    tempo: Tempo = SHORT

    def why_not_here(self) -> str:
        """Why the fault cannot be made on this machine; empty if it can."""
        return (why_no_network() if self.needs_network else "") or self.obstacle()


@dataclass(frozen=True)
class Report:
    """What came of a fault."""

    fault: Fault
    tries: int
    detections: tuple[float, ...]
    verdict: Verdict

    @property
    def detected_in(self) -> float | None:
        """Seconds, the median of all tries; None if nobody was to notice."""
        return median(self.detections) if self.detections else None


def try_out(fault: Fault, *, tries: int | None = None, seed: int = 0) -> Report:
    """Inflicts a fault and judges.

    Args:
        fault: What to do.
        tries: How often; by default as often as the fault says.
        seed: For what is left to chance.
    """
    count = fault.tries if tries is None else tries
    with _scene(fault, seed) as scene:
        for _ in range(count):
            fault.inflict(scene)
        verdict = judge(scene.cluster, scene.load)
        return Report(fault, count, tuple(scene.detections), verdict)


@contextmanager
def _scene(fault: Fault, seed: int) -> Iterator[Scene]:
    folder = Path(tempfile.mkdtemp(prefix="ry-chaos-"))  # pytest's own folders are too long for a socket
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        extra = fault.prepare(stack, folder)
        network = stack.enter_context(networked()) if fault.needs_network else None
        cluster = stack.enter_context(open_cluster(folder, network=network, tempo=fault.tempo, **extra))
        cluster.start_coordinator()
        for node in fault.nodes:
            cluster.begin_agent(node, slots=fault.slots)
        cluster.wait_ready()
        yield Scene(cluster, Load(cluster, seed), random.Random(seed))
