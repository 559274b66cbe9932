"""The coordinator's command line."""

import argparse
import asyncio
import sys
from pathlib import Path

from runyard.common.errors import InvalidTlsFiles
from runyard.common.service.log import configure_log
from runyard.common.service.service_main import run_service, service_parser
from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.coordinator.auth.handshake_log import handshake_failures_logged
from runyard.coordinator.ca.authority_directory import AuthorityError
from runyard.coordinator.runtime.config import CoordinatorSettings
from runyard.coordinator.runtime.server import serve
from runyard.coordinator.store.engine import StoreError


def _parser() -> argparse.ArgumentParser:
    parser = service_parser("coordinator", "Takes launches from Dagster and routes them to node agents.")
    parser.add_argument("--listen", metavar="ADDRESS", help="host:port or unix:/path to serve on")
    parser.add_argument("--routing", type=Path, metavar="FILE", help="rules on which run goes where")
    return parser


def _serve(settings: CoordinatorSettings) -> int:
    try:
        with handshake_failures_logged(lambda: configure_log(settings.log_format, settings.log_level)):
            return asyncio.run(serve(settings))
    except (InvalidYamlFile, InvalidTlsFiles, AuthorityError) as error:
        print(f"runyard coordinator: {error}", file=sys.stderr)
        return 2


def run(argv: list[str] | None = None) -> int:
    """Runs the coordinator.

    Args:
        argv: Arguments after the program's name; None takes the process's own.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    given = _parser().parse_args(argv)
    return run_service("coordinator", CoordinatorSettings, given, _serve, (StoreError,))
