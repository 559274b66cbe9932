"""How long a run takes from its launch to its first event, and what it costs.

Runyard's three ways to start against Dagster's own, in turns, on one machine, with real code servers:

    make bench NAME=start
    make bench NAME=start BENCH_ARGS='--tries 5 --storage sqlite --burst 0'
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
from benchmarks.time_to_failure import events, worker_pid
from dagster._core.launcher import LaunchRunContext
from harness.dagster_site import LAUNCH_IN_THE_CALLER, DagsterSite
from harness.deployment import QUICKSTART, Deployment, open_deployment, quickstart_settings
from harness.postgres import temporary_postgres
from harness.processes import wait_for
from rich.console import Console
from rich.table import Table

TRIES = 15
BURST = 50
SUBMITTERS = 4
"""Runs that are launched at the same time in a burst, as Dagster's queue does with threads."""

MODULE = "quickstart.definitions"
DEFAULT = "DefaultRunLauncher"
WAYS = {"Runyard, cold": "off", "Runyard, framework warm": "framework", "Runyard, location warm": "location"}
"""Of Runyard: the name of a way to start, and the agent's setting for it."""

WARM = "Runyard, location warm"
NEW_RUN_HOLDS = "keep_open"


@dataclass(frozen=True)
class Start:
    """Milliseconds from the launch of one run, and what it cost. NaN: not to be seen from outside.

    A launch begins when Dagster calls the launcher. What Dagster writes before that is the same for all.
    """

    launched: float
    """The call that launches has returned."""
    ready: float
    """The worker has its arguments, and has imported Dagster."""
    run_start: float
    first_op: float
    run_success: float
    cpu: float
    """Milliseconds of CPU time of the worker."""


@dataclass(frozen=True)
class Launcher:
    """One way to start a run."""

    name: str
    site: DagsterSite
    tags: Mapping[str, str]
    state: Path | None
    """Of the agent, if there is one."""

    def submit(self, job: str) -> tuple[str, float]:
        """Launches a run; gives its ID, and when the launcher was called."""
        run = self.site.create_run(job, tags=self.tags)
        launcher = self.site.instance.run_launcher
        launch, called = launcher.launch_run, []

        def noted(context: LaunchRunContext) -> None:
            called.append(time.time())
            launch(context)

        with patch.object(launcher, "launch_run", noted):
            self.site.submit(run)
        return run.run_id, called[0]

    def start(self, job: str) -> Start:
        """Launches a run, and follows it to its end."""
        run_id, began = self.submit(job)
        launched = time.time()
        self.wait_for(run_id, dg.DagsterEventType.RUN_SUCCESS)
        ready, cpu = self._seen_by_agent(run_id)

        def since(kind: dg.DagsterEventType) -> float:
            return (events(self.site, run_id, kind)[0].timestamp - began) * 1000

        return Start(
            launched=(launched - began) * 1000,
            ready=(ready - began) * 1000,
            run_start=since(dg.DagsterEventType.RUN_START),
            first_op=since(dg.DagsterEventType.STEP_START),
            run_success=since(dg.DagsterEventType.RUN_SUCCESS),
            cpu=cpu * 1000,
        )

    def wait_for(self, run_id: str, kind: dg.DagsterEventType, timeout: float = 120.0) -> None:
        """Waits for an event of a run."""
        # Seldom: what is measured are the events' own times, and looking costs the run's storage time too.
        wait_for(lambda: bool(events(self.site, run_id, kind)), f"{kind} of {run_id}", timeout, poll=0.5)

    def private_megabytes(self) -> float:
        """What a worker at work has for itself alone."""
        run_id, _ = self.submit(NEW_RUN_HOLDS)
        self.wait_for(run_id, dg.DagsterEventType.STEP_START)
        private = _private_bytes(worker_pid(self.site, run_id)) / 1e6
        self.site.instance.run_coordinator.cancel_run(run_id)
        self.wait_for(run_id, dg.DagsterEventType.RUN_CANCELED)
        return private

    def burst(self, size: int) -> float:
        """Seconds from the first launch to the last success of so many runs."""
        runs = [self.site.create_run("noop", tags=self.tags) for _ in range(size)]
        began = time.time()
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            list(pool.map(self.site.submit, runs))
        for run in runs:
            self.wait_for(run.run_id, dg.DagsterEventType.RUN_SUCCESS, timeout=600.0)
        ends = [events(self.site, run.run_id, dg.DagsterEventType.RUN_SUCCESS)[0].timestamp for run in runs]
        return max(ends) - began

    def _seen_by_agent(self, run_id: str) -> tuple[float, float]:
        """When the worker was ready, in Unix seconds, and the seconds of CPU time that it took."""
        if self.state is None:
            return float("nan"), float("nan")
        (directory,) = (self.state / "runs" / run_id).iterdir()
        wait_for((directory / "exit").exists, f"the end of {run_id}")
        ended = json.loads((directory / "exit").read_text())
        return (directory / "ready").stat().st_mtime, ended["user_seconds"] + ended["system_seconds"]


def main() -> None:
    """Prints tables, and as the last line the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tries", type=int, default=TRIES, help="runs for each way to start")
    parser.add_argument("--burst", type=int, default=BURST, help="runs at once; 0 leaves it out")
    parser.add_argument("--storage", choices=("both", "sqlite", "postgres"), default="both")
    given = parser.parse_args()
    if given.tries < 1:
        parser.error(f"--tries: {given.tries} is below 1")
    storages = ("sqlite", "postgres") if given.storage == "both" else (given.storage,)
    figures: dict[str, Any] = {"benchmark": "start", "tries": given.tries}
    for storage in storages:
        figures |= measure(storage, given.tries, given.burst)
    print(json.dumps(figures))


def measure(storage: str, tries: int, burst: int) -> dict[str, Any]:
    """Measures everything on one kind of storage; prints tables and gives the figures."""
    suffix = "" if storage == "sqlite" else f"_{storage}"
    with launchers(storage) as ways:
        starts = interleaved(ways, tries, lambda way: way.start("noop"))
        steps = interleaved(ways, max(1, tries // 3), lambda way: way.start("parallel_stocktake"))
        private = {way.name: way.private_megabytes() for way in ways}
        bursts = {way.name: way.burst(burst) for way in ways} if burst else {}
    console = Console(width=130)
    console.print(as_table(f"noop run, {storage}: medians in ms from the launch", starts))
    console.print(as_table(f"multiprocess executor, {storage}: medians in ms from the launch", steps))
    medians = {name: median(found) for name, found in starts.items()}
    of_steps = {name: median(found) for name, found in steps.items()}
    return {
        f"default_over_warm{suffix}": ratio(medians, WARM, "run_start"),
        f"default_over_framework{suffix}": ratio(medians, "Runyard, framework warm", "run_start"),
        f"default_over_cold{suffix}": ratio(medians, "Runyard, cold", "run_start"),
        f"default_over_warm_first_op{suffix}": ratio(medians, WARM, "first_op"),
        f"default_over_warm_multiprocess{suffix}": ratio(of_steps, WARM, "first_op"),
        f"default_over_warm_burst{suffix}": round(bursts[DEFAULT] / bursts[WARM], 2) if bursts else None,
        f"start_ms{suffix}": {name: _known(found) for name, found in medians.items()},
        f"private_mb{suffix}": {name: round(size, 1) for name, size in private.items()},
        f"burst_seconds{suffix}": {name: round(seconds, 2) for name, seconds in bursts.items()},
    }


@contextmanager
def launchers(storage: str) -> Iterator[list[Launcher]]:
    """Every way to start, each with its interpreter ready."""
    with ExitStack() as stack:
        settings: dict[str, Any] = dict(LAUNCH_IN_THE_CALLER)
        if storage == "postgres":
            url = stack.enter_context(temporary_postgres())
            settings["storage"] = {"postgres": {"postgres_url": url}}
        deployment = stack.enter_context(open_deployment(settings=settings))
        others = {key: value for key, value in quickstart_settings().items() if key != "run_launcher"}
        folder = deployment.folder / "dagster-default"
        rival = DagsterSite(deployment.processes, folder, QUICKSTART, MODULE, {**others, **settings})
        stack.callback(rival.close)
        ours = [_runyard(deployment, name, mode) for name, mode in WAYS.items()]
        yield [Launcher(DEFAULT, rival, {}, None), *ours]


def _runyard(deployment: Deployment, name: str, mode: str) -> Launcher:
    os.environ["RUNYARD_AGENT_WARM"] = json.dumps({"mode": mode})
    try:
        deployment.cluster.start_agent(mode, mode, slots=64)
    finally:
        del os.environ["RUNYARD_AGENT_WARM"]
    way = Launcher(name, deployment.site, {"runyard/cluster": mode}, deployment.folder / mode)
    way.start("noop")  # teaches the agent the environment
    if mode != "off":
        log = deployment.cluster.agents[mode]
        wait_for(lambda: '"event": "warm_server_ready"' in log.output(), f"a warm server for {mode}")
    return way


def interleaved(
    ways: Sequence[Launcher], tries: int, start: Callable[[Launcher], Start]
) -> dict[str, list[Start]]:
    """Starts one run of each way, again and again."""
    rounds = [{way.name: start(way) for way in ways} for _ in range(tries)]
    return {way.name: [found[way.name] for found in rounds] for way in ways}


def median(starts: Sequence[Start]) -> Start:
    """The medians of each figure, rounded to a tenth of a millisecond."""
    names = [each.name for each in fields(Start)]
    return Start(*(round(statistics.median(getattr(each, name) for each in starts), 1) for name in names))


def ratio(medians: Mapping[str, Start], name: str, figure: str) -> float:
    """How many times longer Dagster's own launcher takes."""
    theirs: float = getattr(medians[DEFAULT], figure)
    ours: float = getattr(medians[name], figure)
    return round(theirs / ours, 2)


def _known(start: Start) -> dict[str, float]:
    """What was to be seen; NaN is no JSON."""
    return {name: value for name, value in vars(start).items() if value == value}


def as_table(title: str, starts: Mapping[str, Sequence[Start]]) -> Table:
    names = [each.name for each in fields(Start)]
    table = Table("way to start", "tries", *(name.replace("_", " ") for name in names), title=title)
    for name, found in starts.items():
        values = [f"{getattr(median(found), each):.0f}" for each in names]
        table.add_row(name, str(len(found)), *values)
    return table


def _private_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = [int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")]
    return sum(kilobytes) * 1024


if __name__ == "__main__":
    main()
