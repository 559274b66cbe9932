"""Runs named by the beginning of their ID."""

import re

from runyard.cli.exit_codes import UsageError
from runyard.client.client import Client
from runyard.client.errors import RunNotFound

SHORTEST_PREFIX = 6
_CANDIDATES_SHOWN = 5
_FULL_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def resolve_run_id(client: Client, text: str) -> str:
    """Gives the full ID of the run that is meant.

    Args:
        client: Asked for the runs that there are, if `text` is not a full ID.
        text: A run ID, or its beginning of at least `SHORTEST_PREFIX` characters.

    Raises:
        UsageError: The beginning is too short, or fits several runs.
        RunNotFound: No run begins like this.
    """
    wanted = text.strip().lower()
    if _FULL_ID.fullmatch(wanted):
        return wanted
    if len(wanted) < SHORTEST_PREFIX:
        raise UsageError(
            f"run {text!r} is too short: give the ID's first {SHORTEST_PREFIX} characters or more"
        )
    fitting = [run.run_id for run in client.list_runs() if run.run_id.lower().startswith(wanted)]
    if not fitting:
        raise RunNotFound(f"no run begins with {text!r}; `runyard run list` shows those that are known")
    if len(fitting) > 1:
        more = ", ..." if len(fitting) > _CANDIDATES_SHOWN else ""
        raise UsageError(
            f"run {text!r} could be {len(fitting)} runs; give more of the ID: "
            f"{', '.join(fitting[:_CANDIDATES_SHOWN])}{more}"
        )
    return fitting[0]
