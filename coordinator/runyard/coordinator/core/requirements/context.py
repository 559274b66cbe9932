"""Runyard's part of a code location's container_context, without the variables that only the worker needs."""

import json
from collections.abc import Mapping
from typing import Any, Final

from runyard.common.defaults import CONTEXT_KEY

ENVIRONMENT_KEY: Final = "env_vars"
"""Key of the environment variables, which the agent reads; their values may be secrets."""


def requirements_in(ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the requirements in a code location's part: all but the variables.

    Raises:
        ValueError: The variables are not a list of texts.
    """
    entries = ours.get(ENVIRONMENT_KEY, [])
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(
            f'{ENVIRONMENT_KEY} must be a list of texts, such as ["DB_PASSWORD@env:DB_PASSWORD"]'
        )
    return {key: value for key, value in ours.items() if key != ENVIRONMENT_KEY}


def without_secrets(context_json: str) -> str:
    """Return an accepted container_context without the variables that only a worker needs.

    Args:
        context_json: A JSON object; empty for none.
    """
    ours = json.loads(context_json).get(CONTEXT_KEY) if context_json else None
    return json.dumps({CONTEXT_KEY: requirements_in(ours)}) if ours else ""
