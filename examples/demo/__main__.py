"""`make demo`: see the package."""

import signal
import sys
from types import FrameType
from typing import NoReturn

from harness.deployment import open_deployment
from rich.console import Console

from runyard.cli.output.explanation import print_explanation
from runyard.client import Client
from runyard.v1 import placement_pb2

from .plan import BY_OP_TAGS, NODES, PLANS, ROUTING
from .progress import final_table, make_console, progress_on
from .runs import Death, DemoRuns


class NotAsPlanned(Exception):
    """Some run ended otherwise than it should have."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or SIGTERM."""


def main() -> int:
    """Runs the demo; 0 if every run ended as planned and no process was left behind.

    Raises:
        NotAsPlanned: Some run did not; its notes say where the logs are.
    """
    console = make_console()
    _raise_on_first_signal()
    try:
        _run(console)
    except Interrupted:
        console.print("Interrupted; everything that was started has been stopped.")
        return 130
    console.print("Everything that was started has been stopped.")
    return 0


def _run(console: Console) -> None:
    console.print("Starting a coordinator, and a Dagster instance with its code server ...")
    with open_deployment(routing=ROUTING) as deployment:
        for node in NODES:
            console.print(f"Starting the agent of node {node.name} in cluster {node.cluster} ...")
            deployment.cluster.start_agent(node.name, node.cluster, slots=node.slots, labels=node.labels)
        console.print(f"Submitting {len(PLANS)} runs to Dagster's queue, and starting its daemon ...")
        deployment.site.start_daemon()
        runs = DemoRuns(deployment.cluster, deployment.site)
        runs.submit(PLANS)
        with progress_on(console) as progress:
            standings = runs.follow(progress)
        console.print(final_table(standings, runs.seconds_to_start()))
        for death in runs.deaths():
            console.print(_in_words(death), highlight=False, soft_wrap=True)
        _explain(console, runs, deployment.cluster.client)
        wrong = [standing.plan.title for standing in standings if not standing.is_as_planned]
        if wrong:
            raise NotAsPlanned(", ".join(wrong))


def _explain(console: Console, runs: DemoRuns, client: Client) -> None:
    """Shows `runyard run explain`, of a run while it waited and of one that its op tags have placed."""
    if runs.wait is not None:
        run_id, told = runs.wait
        _print_explanation(console, run_id, "while it waited", told)
    run_id = runs.of(BY_OP_TAGS)
    _print_explanation(console, run_id, "an asset run without tags", client.explain_run(run_id))


def _print_explanation(console: Console, run_id: str, which: str, told: placement_pb2.Explanation) -> None:
    console.print(f"\n[bold]$ runyard run explain {run_id[:8]}[/]  [dim]# {which}[/]", highlight=False)
    print_explanation(told, console)


def _in_words(death: Death) -> str:
    return (
        f"The worker of run {death.run_id[:8]} was killed with SIGKILL; {death.milliseconds:.0f} ms later "
        f"Dagster knew:\n  {death.message}"
    )


def _raise_on_first_signal() -> None:
    """Turns the first Ctrl-C or SIGTERM into an exception; further ones must not disturb the clean-up."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


if __name__ == "__main__":
    sys.exit(main())
