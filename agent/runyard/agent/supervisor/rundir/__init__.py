"""The run directory: `<state>/runs/<run_id>/<attempt>/`, the one truth about an attempt on its node.

Agent, fork server and shim speak to each other through these files, so any of them may die at any moment:

    spec          what to start; written by the agent, before anything else
    starting      the attempt is never started again; by the shim, before it makes the worker
    worker        which process is the worker; by the shim, before the worker's program begins
    ready         the worker has its arguments, and all imports of its framework; by the worker, for people
    container     which container is the worker's, where it runs in one; by the agent
    stop          a request to end the worker; by the agent
    exceeded      the worker went beyond its memory limit; by a watchdog that stands in for a dead shim
    exit          how it ended; by the shim, or by a process that outlives it
    lock          locked for as long as the shim lives: a proof that PID reuse cannot forge
    acknowledged  the coordinator has the end, and the directory may be pruned
    stdout stderr what the worker wrote

A directory appears whole or not at all: it is filled under another name and then renamed. The rename fails if
the attempt exists, and so keeps it from being taken on twice. Standard library only.
"""

from runyard.agent.supervisor.rundir.directories import Key, RunDirectories
from runyard.agent.supervisor.rundir.directory import (
    DIRECTORY_NAME,
    EXCEEDED_NAME,
    EXIT_ROOM_BYTES,
    MARK_NAME,
    READY_ROOM_NAME,
    RunDirectory,
)
from runyard.agent.supervisor.rundir.errors import (
    AttemptExists,
    DirectoryGone,
    InvalidKey,
    NoRoom,
    NotWritable,
    RunDirectoryError,
)

__all__ = [
    "DIRECTORY_NAME",
    "EXCEEDED_NAME",
    "EXIT_ROOM_BYTES",
    "MARK_NAME",
    "READY_ROOM_NAME",
    "AttemptExists",
    "DirectoryGone",
    "InvalidKey",
    "Key",
    "NoRoom",
    "NotWritable",
    "RunDirectories",
    "RunDirectory",
    "RunDirectoryError",
]
