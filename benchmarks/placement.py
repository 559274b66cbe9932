"""What it costs to find a node: the coordinator's index beside a plain scan, on small fleets and large ones.

    make bench NAME=placement
    make bench NAME=placement BENCH_ARGS='--nodes 1000 --waiting 2000'

The core alone, without disk and network; times are the processor's. On each fleet, of eight sorts of nodes
half of whose slots are taken and no two of which are quite alike, runs wait that fit nowhere; then runs
that fit are launched, and for each a plain scan puts the same filters and scores to every node. Both must
name the same node, as long as the index takes no sample.
"""

import argparse
import itertools
import json
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.table import Table

from runyard.coordinator.core.events.on_launch import on_launch
from runyard.coordinator.core.events.on_session import on_heartbeat, on_hello, on_status
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.core.model import Instant, Launch, Run
from runyard.coordinator.core.requirements.labels import LabelRule, label_is
from runyard.coordinator.core.requirements.requirements import (
    CompiledRequirements,
    RequirementLayer,
    TimeLimits,
)
from runyard.coordinator.core.requirements.resources import ONE_SLOT, Resources
from runyard.coordinator.core.scheduling.config import Strategy
from runyard.coordinator.core.scheduling.filters import DYNAMIC_FILTERS, STATIC_FILTERS, Ask, NodeClass, View
from runyard.coordinator.core.scheduling.node_search import MAX_COMPARED
from runyard.coordinator.core.scheduling.scores import Candidate, ScoringContext, class_score, needs_on, score
from runyard.coordinator.grpc.messages.agent_reports import attempt_status_of, heartbeat_of, hello_of
from runyard.v1 import agent_pb2, placement_pb2, run_pb2

SIZES = (100, 1_000, 10_000)
WAITING = 10_000
SLOTS = 8
ZONES = ("a", "b", "c", "d")
GIB = 1 << 30

TRIES = 200
"""Of each measurement of the index; the scan of a large fleet is measured fewer times."""

START = 1_000.0


@dataclass
class ClockedFleet:
    """A fleet, and a clock that goes on by itself."""

    fleet: Fleet
    seconds: float = START

    def now(self) -> Instant:
        """A millisecond later each time."""
        self.seconds += 0.001
        return Instant(self.seconds, self.seconds)


@dataclass(frozen=True)
class Costs:
    """Medians on one fleet, in microseconds.

    Attributes:
        place: A launch that finds a node, while others wait.
        scan: The choice of its node by asking every node.
        blocked: A launch that finds none, and waits behind others like it.
        end: The end of a run that frees a node, and the next run's placement there.
        heartbeat: One that says nothing new.
    """

    nodes: int
    waiting: int
    place: float
    scan: float
    blocked: float
    end: float
    heartbeat: float

    @property
    def speedup(self) -> float:
        """How much dearer the scan is."""
        return self.scan / self.place


def main() -> None:
    """Measures, and prints a table and one line of JSON."""
    candidates = _options()
    measured = [measure(nodes, candidates.waiting) for nodes in candidates.nodes or SIZES]
    _print_table(measured)
    figures: dict[str, object] = {}
    for costs in measured:
        for name in ("place", "scan", "blocked", "end", "heartbeat"):
            figures[f"{name}_us_at_{costs.nodes}_nodes"] = round(getattr(costs, name), 1)
        figures[f"speedup_at_{costs.nodes}_nodes"] = round(costs.speedup, 1)
    print(json.dumps(figures))


def measure(nodes: int, waiting: int) -> Costs:
    """Builds a fleet of so many nodes with so many runs that wait, and measures on it."""
    clocked = _yard(nodes)
    names = (str(uuid.UUID(int=number)) for number in itertools.count())
    _fill_half(clocked, names)
    for number in range(waiting):
        _launch(clocked, next(names), _too_large(number))
    assert len(clocked.fleet.queue) == waiting, "some run found a node though it should wait"

    place, scan = _placements(clocked, names)
    blocked = [
        _timed(partial(_launch, clocked, run_id, _too_large(number)))
        for number, run_id in enumerate(itertools.islice(names, TRIES))
    ]
    heartbeat = [_timed(partial(_beat, clocked, number % nodes)) for number in range(TRIES)]
    end = _ends(clocked, names)
    medians = map(statistics.median, (place, scan, blocked, end, heartbeat))
    return Costs(nodes, waiting, *medians)


def _placements(clocked: ClockedFleet, names: Iterator[str]) -> tuple[list[float], list[float]]:
    """Places runs in both ways, one after the other, and ends each before the next."""
    place, scan = [], []
    views = _views(clocked.fleet)
    for number in range(max(5, min(TRIES, 200_000 // len(views)))):
        run_id, wanted = next(names), _fitting(number)
        found: list[str | None] = []
        scan.append(_timed(lambda: found.append(scan_all(views, run_id, wanted))))  # noqa: B023
        place.append(_timed(partial(_launch, clocked, run_id, wanted)))
        run = clocked.fleet.runs[run_id]
        assert run.place is not None, "a run that fits was not placed"
        assert len(views) > MAX_COMPARED or found == [run.place.node], "index and scan disagree"
        _end(clocked, run)
    return place, scan


def scan_all(
    views: Sequence[tuple[NodeClass, View]], run_id: str, wanted: CompiledRequirements
) -> str | None:
    """The plain way: every filter and every score, asked of every node."""
    ask = Ask(wanted)
    context = ScoringContext(run_id, wanted, "shop.py")
    scored = []
    for node_class, view in views:
        if any(static_filter(ask, node_class) for static_filter in STATIC_FILTERS):
            continue
        if any(dynamic_filter(wanted, view) for dynamic_filter in DYNAMIC_FILTERS):
            continue
        resources = view.node.capacity.resources
        candidate = Candidate(
            node_id=view.node.node_id,
            node_class=node_class,
            total=tuple(amount for _, amount in resources),
            free=tuple(view.free[name] for name, _ in resources),
            needs=needs_on(wanted, node_class),
        )
        scored.append(
            (
                -score(context, candidate, Strategy.BINPACK, class_score(context, node_class)),
                candidate.node_id,
            )
        )
    return min(scored)[1] if scored else None


def _yard(nodes: int) -> ClockedFleet:
    clocked = ClockedFleet(Fleet(LeaseSettings(), Instant(START, START)))
    for number in range(nodes):
        hello = _hello(number)
        on_hello(clocked.fleet, clocked.now(), number + 1, hello_of(hello))
        clocked.fleet.take_effects()
    return clocked


def _hello(number: int) -> agent_pb2.Hello:
    # Machines of one model never have quite the same memory, so the index finds no two nodes alike.
    resources = {"slots": SLOTS, "cpu": 16_000, "memory": 64 * GIB - number * 4096}
    if number % 2:
        resources["gpu"] = 4
    return agent_pb2.Hello(
        node_id=f"node-{number}",
        cluster=f"cluster-{number % 2}",
        installation_id=f"installation-{number}",
        instance_id="bench",
        boot_id="bench",
        protocol_min=1,
        protocol_max=1,
        offer=placement_pb2.Offer(
            labels={"zone": ZONES[number // 2 % len(ZONES)]}, drivers=["process"], resources=resources
        ),
    )


def _fill_half(clocked: ClockedFleet, names: Iterator[str]) -> None:
    """Gives every node runs for half of its slots, of different sizes, so that nodes differ."""
    for number, node_id in enumerate(list(clocked.fleet.nodes)):
        for place in range(SLOTS // 2):
            cores = 1 + (number * 7 + place * 3) % 3
            _launch(clocked, next(names), _wanting(node=node_id, cpu=cores * 1000, memory=cores * 4 * GIB))


def _too_large(number: int) -> CompiledRequirements:
    """One of fifty sorts of runs for which there is no room: no node has so much left."""
    return _wanting(_zone(number), cpu=15_500 + number % 50, memory=60 * GIB)


def _fitting(number: int) -> CompiledRequirements:
    """One of some sorts of runs for which there is room on many nodes."""
    return _wanting(_zone(number), cpu=1000 + 100 * (number % 5), memory=2 * GIB)


def _zone(number: int) -> LabelRule:
    return label_is("zone", ZONES[number % len(ZONES)])


def _wanting(*labels: LabelRule, node: str = "", **amounts: int) -> CompiledRequirements:
    return CompiledRequirements(node=node, labels=labels, resources=ONE_SLOT.plus(Resources.of(amounts)))


def _launch(clocked: ClockedFleet, run_id: str, wanted: CompiledRequirements) -> None:
    layer = RequirementLayer(
        "run tags", node=wanted.node or None, labels=wanted.labels, resources=wanted.resources
    )
    launch = Launch(
        run_id=run_id,
        resume_number=0,
        deployment="bench",
        job="orders",
        location="shop.py",
        requirements=wanted,
        time_limits=TimeLimits(grace=30.0),
        digest=run_id,
        spec=run_pb2.LaunchSpec(run_id=run_id),
        layers=(layer,),
        share="shop.py",
    )
    on_launch(clocked.fleet, clocked.now(), launch)
    clocked.fleet.take_effects()


def _views(fleet: Fleet) -> list[tuple[NodeClass, View]]:
    """All that a scan needs of each node, made beforehand: only the questions are to be measured."""
    views = []
    for node in fleet.nodes.values():
        taken = fleet.index.taken(node.node_id)
        free = {name: amount - taken.get(name, 0) for name, amount in node.capacity.resources}
        views.append((NodeClass.of(node), View(node, free)))
    return views


def _ends(clocked: ClockedFleet, names: Iterator[str]) -> list[float]:
    """Ends runs that fill a node each, while others wait that fit there as soon as it is empty."""
    fleet = clocked.fleet
    costs = []
    for node_id in list(fleet.nodes)[:TRIES]:
        live = fleet.live_on(node_id)
        for run in live[:-1]:
            _end(clocked, run)
        waiting = len(fleet.queue)
        last = live[-1]
        costs.append(_timed(partial(_end, clocked, last)))
        assert len(fleet.queue) == waiting - 1, "the end of a run did not place another"
        _launch(clocked, next(names), _too_large(len(costs)))
    return costs


def _end(clocked: ClockedFleet, run: Run) -> None:
    assert run.place is not None
    status = agent_pb2.AttemptStatus(
        run_id=run.run_id,
        attempt=run.attempt,
        phase=run_pb2.PHASE_FINISHED,
        outcome=run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_SUCCEEDED),
    )
    session = int(run.place.node.removeprefix("node-")) + 1
    on_status(clocked.fleet, clocked.now(), run.place.node, session, attempt_status_of(status))
    clocked.fleet.take_effects()


def _beat(clocked: ClockedFleet, number: int) -> None:
    beat = agent_pb2.Heartbeat(sequence=1)
    on_heartbeat(clocked.fleet, clocked.now(), f"node-{number}", number + 1, heartbeat_of(beat))
    clocked.fleet.take_effects()


def _timed(work: Callable[[], object]) -> float:
    """Microseconds of the processor that it took."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1e6


def _print_table(measured: Sequence[Costs]) -> None:
    table = Table(title="Cost in microseconds, medians", title_justify="left")
    for column in (
        "nodes",
        "waiting",
        "placement",
        "plain scan",
        "ratio",
        "blocked",
        "end + next",
        "heartbeat",
    ):
        table.add_column(column, justify="right")
    for costs in measured:
        table.add_row(
            f"{costs.nodes:,}",
            f"{costs.waiting:,}",
            f"{costs.place:,.0f}",
            f"{costs.scan:,.0f}",
            f"{costs.speedup:,.1f}",
            f"{costs.blocked:,.0f}",
            f"{costs.end:,.0f}",
            f"{costs.heartbeat:,.0f}",
        )
    Console(width=110).print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--nodes", type=int, action="append", metavar="N", help="size of a fleet; may be repeated"
    )
    parser.add_argument("--waiting", type=int, default=WAITING, metavar="N", help="runs that wait")
    return parser.parse_args()


if __name__ == "__main__":
    main()
