"""Was a run lost, or doubled? Read from the ledger, and compared with what the coordinator says."""

from dataclasses import dataclass

from chaos.ledger import Life
from chaos.load import FAILED, SUCCEEDED, Load
from chaos.yard import Yard
from waiting import wait_until

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


def judge(yard: Yard, load: Load) -> Verdict:
    """Waits until every accepted run is over, and looks."""
    known = _settled(yard, load)
    lives = yard.ledger.lives()
    lost, doubled = [], []
    for run_id, launches in load.launches.items():
        life = lives.get(run_id, Life())
        if wrong := _what_is_lost(yard, load, known.get(run_id), life, run_id):
            lost.append(f"run {run_id}: {wrong}; {life}")
        if life.overlaps or len(life.starts) > launches:
            doubled.append(f"run {run_id}, launched {launches} times: {life}")
    return Verdict(len(load.launches), tuple(lost), tuple(doubled))


def _settled(yard: Yard, load: Load) -> dict[str, run_pb2.Run]:
    def all_over() -> dict[str, run_pb2.Run] | None:
        try:
            runs = yard.runs()
        except CoordinatorUnreachable:
            return None
        over = (runs.get(run_id, run_pb2.Run()).phase == run_pb2.PHASE_FINISHED for run_id in load.launches)
        return runs if all(over) else None

    try:
        return wait_until(all_over, "", SETTLE_WITHIN, poll=0.2)
    except AssertionError:
        return yard.runs()  # those that did not end count as lost


def _what_is_lost(yard: Yard, load: Load, run: run_pb2.Run | None, life: Life, run_id: str) -> str | None:
    if run is None:
        return "the coordinator has forgotten it"
    kind = run.outcome.kind
    said = f"{run_pb2.OutcomeKind.Name(kind)} ({run.outcome.message})"
    if run.phase != run_pb2.PHASE_FINISHED:
        return f"still {run_pb2.Phase.Name(run.phase)} on {run.node or 'no node'}"
    if yard.ledger.is_alive(run_id):
        return f"said to be over, {said}, and lives"
    if kind not in load.may_end[run_id]:
        return f"ended as {said}"
    if kind == SUCCEEDED and not life.succeeded:
        return "said to have succeeded, and did not"
    if kind == FAILED and life.succeeded:
        return f"succeeded, and is said to be {said}"
    return None
