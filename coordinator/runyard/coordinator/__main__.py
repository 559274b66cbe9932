"""`python -m runyard.coordinator` and `runyard coordinator`."""

import argparse
import asyncio
import sys

from runyard.client.service.command import run_service, service_parser
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.server import serve
from runyard.coordinator.store.engine import StoreError


def _parser() -> argparse.ArgumentParser:
    parser = service_parser("coordinator", "Takes launches from Dagster and routes them to node agents.")
    parser.add_argument("--listen", metavar="ADDRESS", help="host:port or unix:/path to serve on")
    return parser


def _serve(settings: CoordinatorSettings) -> int:
    return asyncio.run(serve(settings))


def main(argv: list[str] | None = None) -> int:
    """Runs the coordinator.

    Args:
        argv: Arguments after the program's name; None takes the process's own.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    given = _parser().parse_args(argv)
    return run_service("coordinator", CoordinatorSettings, given, _serve, (StoreError,))


if __name__ == "__main__":
    sys.exit(main())
