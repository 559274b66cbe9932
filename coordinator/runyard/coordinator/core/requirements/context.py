"""What of a code location's container_context is meant for Runyard, and what of that for the worker alone."""

import json
from collections.abc import Mapping
from typing import Any, Final

from runyard.common.defaults import CONTEXT_KEY

ENVIRONMENT_KEY: Final = "env_vars"
"""Of the part of that which the agent reads: variables, whose values may be secrets."""


def wants_in(ours: Mapping[str, Any]) -> dict[str, Any]:
    """What a code location asks for: its part without variables.

    Raises:
        ValueError: The variables have another form than a list of texts.
    """
    entries = ours.get(ENVIRONMENT_KEY, [])
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(
            f'{ENVIRONMENT_KEY} must be a list of texts, such as ["DB_PASSWORD@env:DB_PASSWORD"]'
        )
    return {key: value for key, value in ours.items() if key != ENVIRONMENT_KEY}


def without_secrets(context_json: str) -> str:
    """A container_context that was taken before, without all that only a worker needs.

    Args:
        context_json: A JSON object; empty for none.
    """
    ours = json.loads(context_json).get(CONTEXT_KEY) if context_json else None
    return json.dumps({CONTEXT_KEY: wants_in(ours)}) if ours else ""
