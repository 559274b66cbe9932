"""The coordinator's command line."""

import argparse
import asyncio
import sys
from pathlib import Path

from runyard.common.errors import InvalidTlsFiles
from runyard.common.service.service_main import run_service, service_parser
from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.coordinator.ca.authority_directory import AuthorityError
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.server import serve
from runyard.coordinator.store.engine import StoreError


def _parser() -> argparse.ArgumentParser:
    parser = service_parser("coordinator", "Accept launches from Dagster and route them to node agents.")
    parser.add_argument("--listen", metavar="ADDRESS", help="host:port or unix:/path to listen on")
    parser.add_argument(
        "--routing", type=Path, metavar="FILE", help="routing file with rules for placing runs"
    )
    return parser


def _serve(settings: CoordinatorSettings) -> int:
    try:
        return asyncio.run(serve(settings))
    except (InvalidYamlFile, InvalidTlsFiles, AuthorityError) as error:
        print(f"runyard coordinator: {error}", file=sys.stderr)
        return 2


def run(argv: list[str] | None = None) -> int:
    """Run the coordinator.

    Args:
        argv: Arguments after the program's name; None: those of the process.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    given = _parser().parse_args(argv)
    return run_service("coordinator", CoordinatorSettings, given, _serve, (StoreError,))
