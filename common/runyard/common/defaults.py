"""Values on which several parts of Runyard must agree. Each is written here and nowhere else.

The supervisor may import the standard library only, so its record of a launch repeats `DRIVER` and
`GRACE_SECONDS`; `tests/common/test_defaults.py` compares them.
"""

from typing import Final

DRIVER: Final = "process"
"""The driver of a launch that names none."""

GRACE_SECONDS: Final = 30.0
"""Seconds between SIGTERM and SIGKILL when a worker is stopped and the launch names no grace period."""

KILL_MARGIN_SECONDS: Final = 10.0
"""Seconds that a node may need after the grace period until a killed worker is gone for certain.

The node's own deadline and the coordinator's decision about a lost node both include it.
"""

ISOLATION_MODES: Final = ("require", "prefer", "none")
"""Modes in which a node must, should or need not have the kernel enforce a run's limits."""

DEFAULT_ISOLATION: Final = "prefer"
"""The isolation mode of a launch that names none."""

PROTOCOL_VERSION: Final = 1
"""Version of the session protocol between agents and the coordinator."""

CONTEXT_KEY: Final = "runyard"
"""Key of Runyard's part in a code location's `container_context`."""

LONGEST_SECONDS: Final = 366 * 86_400.0
"""The longest span of time that a setting or a tag may ask for, in seconds."""
