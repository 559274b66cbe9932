"""Points at which a test has the process killed, as by a power cut; inert unless one is named."""

import os
import signal

VARIABLE = "RUNYARD_FAILPOINT"
"""Environment variable that names the point, such as `agent.after_accept`; read when the process starts."""

_armed = os.environ.get(VARIABLE)


def failpoint(name: str) -> None:
    """Ends the process with SIGKILL here if this is the point that the environment names."""
    if name == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
