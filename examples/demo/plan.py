"""What the demo runs, where, and how each run must end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dagster import DagsterRunStatus
from harness.dagster_site import ASSET_JOB

MAIN, ANNEX = "main", "annex"
"""The two clusters."""

ROUTING = Path(__file__).parent / "routing.yaml"
"""Which runs go where."""


@dataclass(frozen=True)
class NodePlan:
    """One node: what its agent offers."""

    name: str
    cluster: str
    slots: int
    labels: tuple[str, ...] = ()


NODES = (NodePlan("till", MAIN, slots=2), NodePlan("attic", ANNEX, slots=8, labels=("disk=ssd",)))
"""Two runs fill the main cluster."""


@dataclass(frozen=True)
class Plan:
    """One run of the demo. `cluster` is where it must have been; empty: anywhere."""

    title: str
    job: str
    expected: DagsterRunStatus
    tags: Mapping[str, str] = field(default_factory=dict)
    run_config: Mapping[str, Any] = field(default_factory=dict)
    assets: tuple[str, ...] = ()
    cluster: str = ""


def slow_stocktake(seconds: float) -> dict[str, Any]:
    """Run config that makes every step of a stocktake take that long."""
    steps = ("count_stock", "count_deliveries", "close_books")
    return {"ops": {step: {"config": {"seconds": seconds}} for step in steps}}


VICTIM = Plan("killed", "keep_open", DagsterRunStatus.FAILURE, tags={"runyard/cluster": MAIN}, cluster=MAIN)
"""Its worker is killed once it serves and `SPILLING` has found its place."""

TERMINATED = Plan(
    "terminated", "keep_open", DagsterRunStatus.CANCELED, tags={"runyard/cluster": MAIN}, cluster=MAIN
)
"""As `VICTIM`, but Dagster terminates it. Both together fill the main cluster."""

SPILLING = Plan(
    "spilling", "stocktake", DagsterRunStatus.SUCCESS, run_config=slow_stocktake(0.3), cluster=ANNEX
)
"""The rule for counting sends it to the full main cluster first."""

BY_OP_TAGS = Plan("by op tags", ASSET_JOB, DagsterRunStatus.SUCCESS, assets=("forecast",), cluster=ANNEX)
"""Carries no tags of its own: the op tags of its asset ask for a fast disk."""

PLANS = (
    VICTIM,
    TERMINATED,
    SPILLING,
    BY_OP_TAGS,
    Plan("nothing", "noop", DagsterRunStatus.SUCCESS),
    Plan(f"for {ANNEX}", "stocktake", DagsterRunStatus.SUCCESS, {"runyard/cluster": ANNEX}, cluster=ANNEX),
    Plan("parallel", "parallel_stocktake", DagsterRunStatus.SUCCESS),
    Plan("failing", "pay", DagsterRunStatus.FAILURE),
    Plan("assets", ASSET_JOB, DagsterRunStatus.SUCCESS, assets=("orders", "revenue", "report")),
)
