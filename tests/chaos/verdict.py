"""Was a run lost, or doubled? Read from the ledger, and compared with what the coordinator says."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from chaos.chaos_cluster import ChaosCluster
from chaos.ledger import Life
from chaos.load import FAILED, SUCCEEDED, Kind, Load
from harness.waiting import wait_until

from runyard.client import CoordinatorUnreachable
from runyard.v1 import run_pb2

SETTLE_WITHIN = 120.0
"""Seconds for every accepted run to end once the fault is over."""


@dataclass(frozen=True)
class Verdict:
    """What became of the accepted runs.

    Attributes:
        accepted: How many there were.
        lost: A sentence for each run that was forgotten, given up though it lived, or said to have ended
            otherwise than it did.
        doubled: A sentence for each run that was executed more often than it was launched, or twice at once.
    """

    accepted: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]


def judge(cluster: ChaosCluster, load: Load) -> Verdict:
    """Waits until every accepted run is over, and looks."""
    known = _settled(cluster, load)
    alive = {run_id for run_id in load.launches if cluster.ledger.is_alive(run_id)}
    return verdict_on(load.launches, load.may_end, known, cluster.ledger.lives(), alive)


def verdict_on(
    launches: Mapping[str, int],
    may_end: Mapping[str, Set[Kind]],
    known: Mapping[str, run_pb2.Run],
    lives: Mapping[str, Life],
    alive: Set[str],
) -> Verdict:
    """Compares, for each accepted run, what the coordinator says with what its workers wrote.

    Args:
        launches: How often the run was launched.
        may_end: The outcomes that are right after what was done to it.
        known: What the coordinator says.
        lives: What the workers wrote.
        alive: Runs that have a worker now.
    """
    lost, doubled = [], []
    for run_id, count in launches.items():
        life = lives.get(run_id, Life())
        if wrong := _what_is_lost(known.get(run_id), may_end[run_id], life, run_id in alive):
            lost.append(f"run {run_id}: {wrong}; {life}")
        if life.overlaps or len(life.starts) > count:
            doubled.append(f"run {run_id}, launched {count} times: {life}")
    return Verdict(len(launches), tuple(lost), tuple(doubled))


def _settled(cluster: ChaosCluster, load: Load) -> dict[str, run_pb2.Run]:
    def all_over() -> dict[str, run_pb2.Run] | None:
        try:
            runs = cluster.runs()
        except CoordinatorUnreachable:
            return None
        over = (runs.get(run_id, run_pb2.Run()).phase == run_pb2.PHASE_FINISHED for run_id in load.launches)
        return runs if all(over) else None

    try:
        return wait_until(all_over, "", SETTLE_WITHIN, poll=0.2)
    except AssertionError:
        return cluster.runs()  # those that did not end count as lost


def _what_is_lost(run: run_pb2.Run | None, may_end: Set[Kind], life: Life, lives_on: bool) -> str | None:
    if run is None:
        return "the coordinator has forgotten it"
    kind = run.outcome.kind
    said = f"{run_pb2.OutcomeKind.Name(kind)} ({run.outcome.message})"
    if run.phase != run_pb2.PHASE_FINISHED:
        return f"still {run_pb2.Phase.Name(run.phase)} on {run.node or 'no node'}"
    if lives_on:
        return f"said to be over, {said}, and lives"
    if kind not in may_end:
        return f"ended as {said}"
    if kind == SUCCEEDED and not life.succeeded:
        return "said to have succeeded, and did not"
    if kind == FAILED and life.succeeded:
        return f"succeeded, and is said to be {said}"
    return None
