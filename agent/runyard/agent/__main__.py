"""`python -m runyard.agent` and `runyard agent`."""

import argparse
import asyncio
import sys
from pathlib import Path

from runyard.agent.config import AgentSettings
from runyard.agent.drivers.base import DriverError
from runyard.agent.installation import StateError
from runyard.agent.rundir import RunDirectoryError
from runyard.agent.server import serve
from runyard.agent.session import Refused
from runyard.client.errors import InsecureAddress
from runyard.client.service.log import configure_log
from runyard.client.service.settings import SettingsError, load_settings


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runyard agent",
        description="Starts run workers on this node for a coordinator.",
        epilog="Every setting may also be in the --config file or in RUNYARD_AGENT_<SETTING>.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument("--coordinator", metavar="ADDRESS", help="host:port or unix:/path to dial")
    parser.add_argument("--node", metavar="ID", help="name of this node; the host's name by default")
    parser.add_argument("--cluster", metavar="NAME", help="pool of nodes that this one belongs to")
    parser.add_argument("--slots", type=int, metavar="N", help="how many runs may be live at once")
    parser.add_argument(
        "--label", type=_label, action="append", metavar="KEY=VALUE", help="may be given many times"
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="where run directories are kept")
    parser.add_argument(
        "--insecure", action="store_true", default=None, help="allow plain text beyond this machine"
    )
    parser.add_argument("--log-format", choices=("console", "json"))
    parser.add_argument("--check", action="store_true", help="check the settings and exit")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the agent.

    Args:
        argv: Arguments after the program's name; None takes the process's own.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    args = _parser().parse_args(argv)
    flags = {
        "coordinator": args.coordinator,
        "node_id": args.node,
        "cluster": args.cluster,
        "slots": args.slots,
        "labels": dict(args.label) if args.label else None,
        "state_directory": args.state,
        "insecure": args.insecure,
        "log_format": args.log_format,
    }
    try:
        settings = load_settings(AgentSettings, file=args.config, prefix="RUNYARD_AGENT", flags=flags)
        settings.require_safe()
    except (SettingsError, InsecureAddress) as error:
        print(f"runyard agent: {error}", file=sys.stderr)
        return 2
    if args.check:
        print("the settings are fine")
        return 0
    configure_log(settings.log_format, settings.log_level)
    try:
        asyncio.run(serve(settings))
    except (StateError, RunDirectoryError, DriverError, Refused) as error:
        print(f"runyard agent: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
