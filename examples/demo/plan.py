"""What the demo runs, and how each run must end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterRunStatus
from examples.deployment.dagster_site import ASSET_JOB

MAIN, ANNEX = "main", "annex"
"""The two clusters."""

NODES = {"till": MAIN, "attic": ANNEX}
"""The nodes, each with its cluster."""


@dataclass(frozen=True)
class Plan:
    """One run of the demo."""

    title: str
    job: str
    expected: DagsterRunStatus
    tags: Mapping[str, str] = field(default_factory=dict)
    run_config: Mapping[str, Any] = field(default_factory=dict)
    assets: tuple[str, ...] = ()


def slow_stocktake(seconds: float) -> dict[str, Any]:
    """Run config that makes every step of a stocktake take that long."""
    steps = ("count_stock", "count_deliveries", "close_books")
    return {"ops": {step: {"config": {"seconds": seconds}} for step in steps}}


VICTIM = Plan("killed", "keep_open", DagsterRunStatus.FAILURE, tags={"runyard/cluster": MAIN})
"""Its worker is killed as soon as it serves."""

TERMINATED = Plan("terminated", "keep_open", DagsterRunStatus.CANCELED)
"""Dagster terminates it as soon as it serves."""

PLANS = (
    VICTIM,
    TERMINATED,
    Plan("nothing", "noop", DagsterRunStatus.SUCCESS),
    Plan("in process", "stocktake", DagsterRunStatus.SUCCESS, run_config=slow_stocktake(0.3)),
    Plan(f"for {ANNEX}", "stocktake", DagsterRunStatus.SUCCESS, tags={"runyard/cluster": ANNEX}),
    Plan("parallel", "parallel_stocktake", DagsterRunStatus.SUCCESS),
    Plan("failing", "pay", DagsterRunStatus.FAILURE),
    Plan("assets", ASSET_JOB, DagsterRunStatus.SUCCESS, assets=("orders", "revenue", "report")),
)
