"""How long Dagster believes in a killed worker: from SIGKILL to the run's failure event.

Runyard against Dagster's own DefaultRunLauncher, in turns, on one machine, with real code servers:

    make bench NAME=time_to_failure
    make bench NAME=time_to_failure BENCH_ARGS='--tries 5'
"""

import argparse
import json
import os
import re
import signal
import statistics
import time
from collections.abc import Mapping, Sequence

import dagster as dg
from harness.dagster_site import LAUNCH_IN_THE_CALLER, DagsterSite
from harness.deployment import QUICKSTART, open_deployment, quickstart_settings
from harness.processes import wait_for
from rich.console import Console
from rich.table import Table

JOB = "keep_open"
TRIES = 20


def main() -> None:
    """Prints a table, and as the last line the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tries", type=int, default=TRIES, help="killed workers for each launcher")
    tries: int = parser.parse_args().tries
    if tries < 1:
        parser.error(f"--tries: {tries} is below 1")
    milliseconds = measure(tries)
    Console().print(as_table(milliseconds))
    print(json.dumps({"benchmark": "time_to_failure", "unit": "ms", "tries": tries, **summary(milliseconds)}))


def measure(tries: int) -> dict[str, list[float]]:
    """Kills that many workers of each launcher, in turns.

    Returns:
        By launcher: milliseconds from each kill to the failure event.
    """
    with open_deployment(settings=LAUNCH_IN_THE_CALLER) as deployment:
        deployment.cluster.start_agent("node-1", "default")
        others = {key: value for key, value in quickstart_settings().items() if key != "run_launcher"}
        rival = DagsterSite(
            deployment.processes,
            deployment.folder / "dagster-default",
            QUICKSTART,
            "quickstart.definitions",
            {**others, **LAUNCH_IN_THE_CALLER},
        )
        try:
            sites = {"RunyardRunLauncher": deployment.site, "DefaultRunLauncher": rival}
            rounds = [{name: kill_one(site) for name, site in sites.items()} for _ in range(tries)]
        finally:
            rival.close()
    return {name: [found[name] for found in rounds] for name in sites}


def kill_one(site: DagsterSite) -> float:
    """Launches a run, kills its worker at work, and tells after how many milliseconds Dagster knew."""
    run_id = site.submit(site.create_run(JOB))
    wait_for(lambda: bool(events(site, run_id, dg.DagsterEventType.STEP_START)), "the step to start")
    pid = worker_pid(site, run_id)
    killed_at = time.time()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: bool(events(site, run_id, dg.DagsterEventType.RUN_FAILURE)), "the run to fail")
    return (events(site, run_id, dg.DagsterEventType.RUN_FAILURE)[0].timestamp - killed_at) * 1000


def worker_pid(site: DagsterSite, run_id: str) -> int:
    """The worker says its process ID in its first event, whoever launched it."""
    for event in events(site, run_id, dg.DagsterEventType.ENGINE_EVENT):
        if found := re.search(r"Started process for run \(pid: (\d+)\)", event.message):
            return int(found[1])
    raise LookupError(f"the worker of run {run_id} did not say its process ID")


def events(site: DagsterSite, run_id: str, kind: dg.DagsterEventType) -> Sequence[dg.EventLogEntry]:
    return site.instance.all_logs(run_id, of_type=kind)


def summary(milliseconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Minimum, median and maximum for each launcher, rounded to a tenth."""
    return {
        name: {
            "min": round(min(times), 1),
            "median": round(statistics.median(times), 1),
            "max": round(max(times), 1),
        }
        for name, times in milliseconds.items()
    }


def as_table(milliseconds: Mapping[str, Sequence[float]]) -> Table:
    table = Table("launcher", "tries", "min ms", "median ms", "max ms", title="from SIGKILL to RUN_FAILURE")
    for name, numbers in summary(milliseconds).items():
        table.add_row(name, str(len(milliseconds[name])), *(f"{number:.1f}" for number in numbers.values()))
    return table


if __name__ == "__main__":
    main()
