"""The run tags that Runyard writes: never those that it reads, which only the coordinator understands.

Dagster copies the tags of a run onto its retries. If the node that a run happened to get were written into
the tag that asks for a node, every retry and every resume would be bound to the node that has just failed.
"""

from collections.abc import Mapping
from typing import Final

# For people who look at or filter runs. Nothing reads them back.
PLACED_CLUSTER: Final = "runyard/placed_cluster"
PLACED_NODE: Final = "runyard/placed_node"
OUTCOME: Final = "runyard/outcome"
# For sensors too, which may decide by it whether to launch the run again; see causes.exit_cause.
EXIT_CAUSE: Final = "runyard/exit_cause"

WRITTEN: Final = frozenset({PLACED_CLUSTER, PLACED_NODE, OUTCOME, EXIT_CAUSE})

# Stands in the place of a value that a retry inherited from the run before it.
NOT_YET: Final = "not yet"


def without_written(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that a launch carries: those that describe the run, not what became of it or of its parent."""
    return {name: value for name, value in tags.items() if name not in WRITTEN}


def placed(tags: Mapping[str, str], cluster: str, node: str) -> dict[str, str]:
    """The tags to write once a run was launched.

    Args:
        tags: The tags that the run has.
        cluster: Where the run was placed; empty while it waits.
        node: As `cluster`.
    """
    known = {PLACED_CLUSTER: cluster, PLACED_NODE: node} if node else {}
    inherited = dict.fromkeys(WRITTEN & tags.keys() - known.keys(), NOT_YET)
    return inherited | known
