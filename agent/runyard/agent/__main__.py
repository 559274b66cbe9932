"""`python -m runyard.agent` and `runyard agent`."""

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
from runyard.common.service.service_main import Service


def _serve(settings: AgentSettings) -> int:
    asyncio.run(serve(settings))
    return 0


SERVICE = Service(
    "agent",
    "Start run workers on this node for a coordinator.",
    AgentSettings,
    _serve,
    (StateError, RunDirectoryError, DriverError, JoinFailed, InvalidTlsFiles, Refused, UnusableKey),
    short_flags={"node_id": "--node"},
    entry_flags={"labels": "--label", "resources": "--resource", "taints": "--taint"},
)


def main(argv: list[str] | None = None) -> int:
    """Run the agent; see `Service.main`."""
    return SERVICE.main(argv)


if __name__ == "__main__":
    sys.exit(main())
