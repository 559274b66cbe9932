"""The reporter as a separate process: `runyard dagster-reporter`."""

import argparse
import logging
import os
import signal
import sys
from functools import partial

from dagster import DagsterInstance

from runyard.client import RunyardError
from runyard.launcher.launcher import RunyardRunLauncher
from runyard.launcher.reporter.reporter import Reporter

logger = logging.getLogger("runyard.launcher.reporter_main")


def main(argv: list[str] | None = None) -> int:
    """Report the outcomes of workers to Dagster until SIGTERM or SIGINT.

    Args:
        argv: Arguments without the program's name. None: those of this process.

    Returns:
        0 after a signal, 2 if the Dagster instance cannot be used.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        reporter = _reporter(arguments.dagster_home)
    except (RunyardError, _UnusableInstance) as error:
        print(f"runyard dagster-reporter: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: reporter.stop())
    reporter.run()
    return 0


class _UnusableInstance(Exception):
    """There is no Dagster instance to report to, or it does not use Runyard."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runyard dagster-reporter",
        description="Writes the outcomes of workers into Dagster. Needs Runyard's launcher in dagster.yaml.",
    )
    parser.add_argument(
        "--dagster-home", metavar="DIR", help="directory of dagster.yaml (default: $DAGSTER_HOME)"
    )
    return parser


def _reporter(dagster_home: str | None) -> Reporter:
    home = dagster_home or os.environ.get("DAGSTER_HOME")
    if not home:
        raise _UnusableInstance("no Dagster instance; give --dagster-home DIR or set DAGSTER_HOME")
    if not os.path.isfile(os.path.join(home, "dagster.yaml")):
        raise _UnusableInstance(f"there is no dagster.yaml in {home}; give --dagster-home DIR")
    open_instance = partial(DagsterInstance.from_config, home)
    with open_instance() as instance:
        launcher = instance.run_launcher
    if not isinstance(launcher, RunyardRunLauncher):
        raise _UnusableInstance(
            f"the run launcher of {home} is {type(launcher).__name__}; "
            "set run_launcher to runyard.launcher.RunyardRunLauncher in dagster.yaml"
        )
    settings = launcher.settings
    logger.info("Reporting for deployment %s of the coordinator at %s", settings.deployment, settings.address)
    return Reporter(launcher.open_client(), open_instance, settings.deployment)


if __name__ == "__main__":
    sys.exit(main())
