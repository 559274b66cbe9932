"""`python -m runyard.coordinator` and `runyard coordinator`."""

import argparse
import asyncio
import sys
from pathlib import Path

from runyard.client.errors import InsecureAddress
from runyard.client.service.log import configure_log
from runyard.client.service.settings import SettingsError, load_settings
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.server import serve
from runyard.coordinator.store.engine import StoreError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runyard coordinator",
        description="Takes launches from Dagster and routes them to node agents.",
        epilog="Every setting may also be in the --config file or in RUNYARD_COORDINATOR_<SETTING>.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument("--listen", metavar="ADDRESS", help="host:port or unix:/path to serve on")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where runs are kept")
    parser.add_argument(
        "--insecure", action="store_true", default=None, help="allow plain text beyond this machine"
    )
    parser.add_argument("--log-format", choices=("console", "json"))
    parser.add_argument("--check", action="store_true", help="check the settings and exit")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the coordinator.

    Args:
        argv: Arguments after the program's name; None takes the process's own.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    args = _parser().parse_args(argv)
    flags = {
        "listen": args.listen,
        "state_directory": args.state,
        "insecure": args.insecure,
        "log_format": args.log_format,
    }
    try:
        settings = load_settings(
            CoordinatorSettings, file=args.config, prefix="RUNYARD_COORDINATOR", flags=flags
        )
        settings.require_safe()
    except (SettingsError, InsecureAddress) as error:
        print(f"runyard coordinator: {error}", file=sys.stderr)
        return 2
    if args.check:
        print("the settings are fine")
        return 0
    configure_log(settings.log_format, settings.log_level)
    try:
        return asyncio.run(serve(settings))
    except StoreError as error:
        print(f"runyard coordinator: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
