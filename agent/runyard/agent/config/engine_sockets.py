"""Where container engines listen: a mount of such a place makes its container the owner of the machine."""

import posixpath
import re
from typing import Final

_NAMES: Final = frozenset(
    {"docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock", "dockershim.sock"}
)

_ABOVE: Final = re.compile(
    r"/|/(var/)?run|/var|/(var/)?run/(docker|podman|containerd|crio|buildkit|user(/[0-9]+(/podman)?)?)"
)
"""Folders that hold such sockets, or hold those folders, by their usual names."""


def holds_engine_socket(source: str, engine: str) -> bool:
    """Whether a mount of this place shows the socket of a container engine.

    Args:
        source: A plain path of this machine, or the name of a volume, which never does. Symbolic links are
            not supervised.
        engine: Address of this node's own engine.
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
