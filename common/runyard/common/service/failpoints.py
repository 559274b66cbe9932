"""Points at which a test kills the process, like a power cut. Inert unless one is named."""

import os
import signal

VARIABLE = "RUNYARD_FAILPOINT"
"""Environment variable that names the point, such as `agent.after_accept`; read when the process starts."""

_armed = os.environ.get(VARIABLE)


def failpoint(name: str) -> None:
    """Kill the process with SIGKILL if the environment names this point."""
    if name == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
