"""How the runs stand, for people: a live table in a terminal, a line for each change elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from dagster import DagsterRunStatus
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .plan import Plan

ENDED = {
    DagsterRunStatus.SUCCESS: "green",
    DagsterRunStatus.FAILURE: "red",
    DagsterRunStatus.CANCELED: "yellow",
}
"""The ways in which Dagster sees a run end, each with its colour."""


@dataclass(frozen=True)
class Standing:
    """How one run stands, in Runyard and in Dagster."""

    plan: Plan
    run_id: str
    cluster: str
    node: str
    attempt: str
    phase: str
    outcome: str
    status: DagsterRunStatus

    @property
    def is_over(self) -> bool:
        """Dagster knows the end, and so does Runyard if the run ever got there."""
        return self.status in ENDED and self.phase in ("FINISHED", "")

    @property
    def is_as_planned(self) -> bool:
        """It ended as it should have, and where it should have."""
        return self.status == self.plan.expected and self.plan.cluster in ("", self.cluster)


class Progress(Protocol):
    """Shows how the runs stand."""

    def show(self, standings: Sequence[Standing]) -> None: ...


class LiveTable:
    """Redraws one table."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, standings: Sequence[Standing]) -> None:
        self._live.update(live_table(standings), refresh=True)


class Lines:
    """Prints a line whenever a run has changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, Standing] = {}

    def show(self, standings: Sequence[Standing]) -> None:
        for standing in standings:
            if self._shown.get(standing.run_id) != standing:
                self._shown[standing.run_id] = standing
                self._console.print(_line(standing), highlight=False, soft_wrap=True)


def make_console() -> Console:
    """A terminal as wide as it is; a pipe or a CI log wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


@contextmanager
def progress_on(console: Console) -> Iterator[Progress]:
    """The way to show progress that suits the console."""
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield LiveTable(live)


def live_table(standings: Sequence[Standing]) -> Table:
    """The runs while they go on."""
    table = _table("run", "job", "cluster", "node", "attempt", "phase", "Dagster")
    for run in standings:
        table.add_row(
            *(run.run_id[:8], run.plan.job, run.cluster, run.node, run.attempt, run.phase),
            _coloured(run.status),
        )
    return table


def final_table(standings: Sequence[Standing], seconds_to_start: Mapping[str, float]) -> Table:
    """The runs after the end.

    Args:
        standings: How they ended.
        seconds_to_start: By run ID: from the launch by Dagster to the first event of the run itself.
    """
    table = _table("run", "what", "cluster", "node", "attempt", "outcome", "Dagster", "start")
    for run in standings:
        seconds = seconds_to_start.get(run.run_id)
        table.add_row(
            *(run.run_id[:8], run.plan.title, run.cluster, run.node, run.attempt, run.outcome),
            _coloured(run.status) + ("" if run.is_as_planned else f" instead of {_planned(run.plan)}"),
            "-" if seconds is None else f"{seconds:.2f} s",
        )
    return table


def _table(*headers: str) -> Table:
    """Fits into 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for header in headers:
        table.add_column(header, no_wrap=True)
    return table


def _planned(plan: Plan) -> str:
    return f"{plan.expected.value} in {plan.cluster}" if plan.cluster else plan.expected.value


def _coloured(status: DagsterRunStatus) -> str:
    colour = ENDED.get(status)
    return f"[{colour}]{status.value}[/{colour}]" if colour else status.value


def _line(run: Standing) -> str:
    where = f"{run.cluster}/{run.node} attempt {run.attempt}" if run.node else "nowhere yet"
    return f"{run.run_id[:8]}  {run.plan.title:10}  {where:21}  {run.phase:9}  {run.status.value}"
