"""Sets of phases that several tools use."""

from typing import Final

from runyard.v1 import run_pb2

PHASES_ON_A_NODE: Final = (
    run_pb2.PHASE_ASSIGNED,
    run_pb2.PHASE_STARTING,
    run_pb2.PHASE_RUNNING,
    run_pb2.PHASE_STOPPING,
)
"""Phases in which a run holds resources of a node."""

UNFINISHED_PHASES: Final = (run_pb2.PHASE_QUEUED, *PHASES_ON_A_NODE)
"""Phases of runs that have not finished."""
