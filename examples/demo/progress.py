"""How the runs stand, for people: a live table in a terminal, a line for each change elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from dagster import DagsterRunStatus
from examples.demo.plan import Plan
from rich.console import Console
from rich.live import Live
from rich.table import Table

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
    def is_as_expected(self) -> bool:
        return self.status == self.plan.expected


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
    table = Table("run", "what", "job", "cluster", "node", "attempt", "phase", "Dagster")
    for run in standings:
        table.add_row(
            *(run.run_id[:8], run.plan.title, run.plan.job, run.cluster, run.node, run.attempt, run.phase),
            _coloured(run.status),
        )
    return table


def final_table(standings: Sequence[Standing], seconds_to_start: Mapping[str, float]) -> Table:
    """The runs after the end.

    Args:
        standings: How they ended.
        seconds_to_start: By run ID: from the launch by Dagster to the first event of the run itself.
    """
    table = Table(
        "run", "what", "cluster", "node", "attempt", "outcome", "Dagster", "to start", "as expected"
    )
    for run in standings:
        seconds = seconds_to_start.get(run.run_id)
        table.add_row(
            *(run.run_id[:8], run.plan.title, run.cluster, run.node, run.attempt, run.outcome),
            _coloured(run.status),
            "-" if seconds is None else f"{seconds:.2f} s",
            "yes" if run.is_as_expected else f"[red]no: {run.plan.expected.value}[/red]",
        )
    return table


def _coloured(status: DagsterRunStatus) -> str:
    colour = ENDED.get(status)
    return f"[{colour}]{status.value}[/{colour}]" if colour else status.value


def _line(run: Standing) -> str:
    where = f"{run.cluster}/{run.node} attempt {run.attempt}" if run.node else "nowhere yet"
    return f"{run.run_id[:8]}  {run.plan.title:20}  {where:24}  {run.phase:9}  {run.status.value}"
