"""The run tags that Runyard writes. The tags that it reads are the coordinator's affair.

Dagster copies the tags of a run onto its retries. If the node of a run were written into the tag that
requests a node, every retry and every resume would be bound to the node that has just failed.
"""

from collections.abc import Mapping
from typing import Final

# For people who inspect or filter runs. Nothing reads them back.
PLACED_CLUSTER: Final = "runyard/placed_cluster"
PLACED_NODE: Final = "runyard/placed_node"
OUTCOME: Final = "runyard/outcome"
# Sensors may use it to decide whether to launch the run again; see causes.exit_cause.
EXIT_CAUSE: Final = "runyard/exit_cause"

WRITTEN: Final = frozenset({PLACED_CLUSTER, PLACED_NODE, OUTCOME, EXIT_CAUSE})

# Replaces a value that a retry inherited from the previous run.
NOT_YET: Final = "not yet"


def without_written(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags for a launch: those that describe the run, not the outcome of it or of its parent."""
    return {name: value for name, value in tags.items() if name not in WRITTEN}


def placed(tags: Mapping[str, str], cluster: str, node: str) -> dict[str, str]:
    """Tags to write after a run was launched.

    Args:
        tags: Tags of the run.
        cluster: Cluster of the run; empty while it waits.
        node: As `cluster`.
    """
    known = {PLACED_CLUSTER: cluster, PLACED_NODE: node} if node else {}
    inherited = dict.fromkeys(WRITTEN & tags.keys() - known.keys(), NOT_YET)
    return inherited | known
