"""`make demo`: see the package."""

import signal
import sys
from types import FrameType
from typing import NoReturn

from examples.demo.plan import NODES, PLANS
from examples.demo.progress import Standing, final_table, progress_on
from examples.demo.runs import Death, DemoRuns
from examples.deployment.deployment import Deployment
from rich.console import Console


class Interrupted(Exception):
    """Ctrl-C, or SIGTERM."""


def main() -> int:
    """Runs the demo; 0 if every run ended as planned and no process was left behind."""
    console = Console()
    _raise_on_first_signal()
    try:
        standings = _run(console)
    except Interrupted:
        console.print("Interrupted. Everything that was started has been stopped.")
        return 130
    console.print("Everything that was started has been stopped.")
    return 0 if all(standing.is_as_expected for standing in standings) else 1


def _run(console: Console) -> list[Standing]:
    console.print("Starting a coordinator, and a Dagster instance with its code server ...")
    with Deployment() as deployment:
        for node, cluster in NODES.items():
            console.print(f"Starting the agent of node {node} in cluster {cluster} ...")
            deployment.yard.start_agent(node, cluster)
        deployment.site.start_daemon()
        runs = DemoRuns(deployment.yard, deployment.site)
        runs.submit(PLANS)
        with progress_on(console) as progress:
            standings = runs.follow(progress)
        console.print(final_table(standings, runs.seconds_to_start()))
        for death in runs.deaths():
            console.print(_in_words(death), highlight=False, soft_wrap=True)
    return list(standings)


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
