"""What an outage costs live runs: the coordinator, then the agents, are killed and away while runs go on.

    make bench NAME=outage
    make bench NAME=outage BENCH_ARGS='--runs 5 --seconds 10'

What became of the runs is read from Dagster alone: their status, and how many workers said that they started.
Ends with exit code 1 if a run did not end as SUCCESS, or was started more than once.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import dagster as dg
from harness.dagster_site import LAUNCH_IN_THE_CALLER, DagsterSite
from harness.deployment import Deployment, open_deployment
from harness.processes import wait_for
from rich.console import Console
from rich.table import Table

JOB, STEPS = "stocktake", ("count_stock", "count_deliveries", "close_books")
RUNS, SECONDS = 20, 60.0
NODES = ("node-1", "node-2")


@dataclass(frozen=True)
class Finding:
    """What became of the runs of one outage."""

    killed: str
    seconds: float
    runs: int
    succeeded: int
    ended_otherwise: int
    started_twice: int

    @property
    def is_right(self) -> bool:
        return self.succeeded == self.runs and not self.started_twice


def main() -> int:
    """Prints a table, and as the last line the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help="live runs during each outage")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each outage")
    given = parser.parse_args()
    with open_deployment(settings=LAUNCH_IN_THE_CALLER) as deployment:
        start_agents(deployment, given.runs)
        findings = [
            outage(deployment, "coordinator", given.runs, given.seconds),
            outage(deployment, "agents", given.runs, given.seconds),
        ]
    Console().print(as_table(findings))
    print(json.dumps({"benchmark": "outage", "findings": [asdict(finding) for finding in findings]}))
    return 0 if all(finding.is_right for finding in findings) else 1


def start_agents(deployment: Deployment, runs: int) -> None:
    for node in NODES:
        deployment.cluster.start_agent(node, "default", slots=-(-runs // len(NODES)))


def outage(deployment: Deployment, part: str, runs: int, seconds: float) -> Finding:
    """Kills a part under live runs, leaves it away for that long, and waits until all runs are over."""
    site = deployment.site
    work = {"ops": {step: {"config": {"seconds": seconds}} for step in STEPS}}
    run_ids = [site.submit(site.create_run(JOB, run_config=work)) for _ in range(runs)]
    wait_for(lambda: all_are(site, run_ids, is_started), "all runs to be at work", timeout=300)
    kill, start = part_switches(deployment, part, runs)
    kill()
    time.sleep(seconds)
    start()
    wait_for(lambda: all_are(site, run_ids, is_over), "all runs to end", timeout=6 * seconds + 300)
    statuses = Counter(site.status(run_id) for run_id in run_ids)
    succeeded = statuses[dg.DagsterRunStatus.SUCCESS]
    return Finding(
        killed=part,
        seconds=seconds,
        runs=runs,
        succeeded=succeeded,
        ended_otherwise=runs - succeeded,
        started_twice=sum(workers_started(site, run_id) > 1 for run_id in run_ids),
    )


def part_switches(
    deployment: Deployment, part: str, runs: int
) -> tuple[Callable[[], None], Callable[[], object]]:
    """How a part is killed, and how it is started again."""
    cluster, processes = deployment.cluster, deployment.processes

    def kill_agents() -> None:
        for child in cluster.agents.values():
            processes.kill(child)

    if part == "coordinator":
        return lambda: processes.kill(cluster.coordinator), cluster.start_coordinator
    return kill_agents, lambda: start_agents(deployment, runs)


def is_started(status: dg.DagsterRunStatus) -> bool:
    return status == dg.DagsterRunStatus.STARTED


def is_over(status: dg.DagsterRunStatus) -> bool:
    return status.value in ("SUCCESS", "FAILURE", "CANCELED")


def all_are(site: DagsterSite, run_ids: Sequence[str], wanted: Callable[[dg.DagsterRunStatus], bool]) -> bool:
    return all(wanted(site.status(run_id)) for run_id in run_ids)


def workers_started(site: DagsterSite, run_id: str) -> int:
    """Every worker says in Dagster's event log that it started."""
    entries = site.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    return sum("Started process for run" in entry.message for entry in entries)


def as_table(findings: Sequence[Finding]) -> Table:
    table = Table(
        "killed and away", "for", "live runs", "SUCCESS", "otherwise", "started twice", title="outages"
    )
    for each in findings:
        counts = (each.runs, each.succeeded, each.ended_otherwise, each.started_twice)
        table.add_row(each.killed, f"{each.seconds:g} s", *map(str, counts))
    return table


if __name__ == "__main__":
    sys.exit(main())
