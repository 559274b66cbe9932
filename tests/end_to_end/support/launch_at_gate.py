"""Launches a run from a process of its own, as soon as a file appears: HOME RUN_ID FILE."""

import sys
import time
from pathlib import Path

import dagster as dg
from dagster._core.launcher import LaunchRunContext


def main(home: str, run_id: str, gate: str) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        launcher = instance.run_launcher
        print("at the gate", flush=True)
        while not Path(gate).exists():
            time.sleep(0.001)
        launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))


if __name__ == "__main__":
    main(*sys.argv[1:])
