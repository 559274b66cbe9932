"""`python -m runyard.agent` and `runyard agent`."""

import argparse
import asyncio
import sys

from runyard.agent.config.agent import AgentSettings
from runyard.agent.drivers.base import DriverError
from runyard.agent.node.installation import StateError
from runyard.agent.security.enrolment import JoinFailed
from runyard.agent.server import serve
from runyard.agent.session.session import Refused
from runyard.agent.supervisor.rundir import RunDirectoryError
from runyard.common.errors import InvalidTlsFiles
from runyard.common.security.signing import UnusableKey
from runyard.common.service.service_main import run_service, service_parser


class _Pair(argparse.Action):
    """Gathers options of the form KEY=VALUE in one mapping."""

    def __call__(
        self, parser: object, given: argparse.Namespace, text: object, option: object = None
    ) -> None:
        key, equals, value = str(text).partition("=")
        if not equals:
            raise argparse.ArgumentError(self, f"{text!r} is not of the form KEY=VALUE")
        setattr(given, self.dest, {**(getattr(given, self.dest) or {}), key: value})


def _parser() -> argparse.ArgumentParser:
    parser = service_parser("agent", "Starts run workers on this node for a coordinator.")
    parser.add_argument("--coordinator", metavar="ADDRESS", help="host:port or unix:/path to dial")
    parser.add_argument(
        "--node", dest="node_id", metavar="ID", help="name of this node; the host's name by default"
    )
    parser.add_argument("--cluster", metavar="NAME", help="pool of nodes that this one belongs to")
    parser.add_argument("--slots", type=int, metavar="N", help="how many runs may be live at once")
    parser.add_argument(
        "--label", dest="labels", action=_Pair, metavar="KEY=VALUE", help="may be given many times"
    )
    parser.add_argument(
        "--resource",
        dest="resources",
        action=_Pair,
        metavar="NAME=AMOUNT",
        help="what the node has, such as cpu=8, memory=32Gi, gpu=2 or licenses=3; may be given many times",
    )
    parser.add_argument(
        "--taint",
        dest="taints",
        action="append",
        metavar="KEY[=VALUE]",
        help="keeps away runs that do not tolerate it; may be given many times",
    )
    return parser


def _serve(settings: AgentSettings) -> int:
    asyncio.run(serve(settings))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the agent.

    Args:
        argv: Arguments after the program's name; None takes the process's own.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    failures = (
        StateError,
        RunDirectoryError,
        DriverError,
        JoinFailed,
        InvalidTlsFiles,
        Refused,
        UnusableKey,
    )
    return run_service("agent", AgentSettings, _parser().parse_args(argv), _serve, failures)


if __name__ == "__main__":
    sys.exit(main())
