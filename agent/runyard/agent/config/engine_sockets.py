"""Sockets of container engines. A container that mounts one has root access to the machine."""

import posixpath
import re
from typing import Final

_NAMES: Final = frozenset(
    {"docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock", "dockershim.sock"}
)

_ABOVE: Final = re.compile(
    r"/|/(var/)?run|/var|/(var/)?run/(docker|podman|containerd|crio|buildkit|user(/[0-9]+(/podman)?)?)"
)
"""Usual directories of such sockets, and their parents."""


def holds_engine_socket(source: str, engine: str) -> bool:
    """True if a mount of this source contains the socket of a container engine.

    Args:
        source: A normalized path on this machine, or the name of a volume, which never does. Symbolic links
            are not followed.
        engine: Address of this node's engine.
    """
    if not source.startswith("/"):
        return False
    own = posixpath.normpath(engine.removeprefix("unix://")) if engine.startswith("unix://") else ""
    return (
        posixpath.basename(source) in _NAMES
        or _ABOVE.fullmatch(source) is not None
        or own == source
        or own.startswith(source.rstrip("/") + "/")
    )
