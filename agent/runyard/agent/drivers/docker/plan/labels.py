"""Names and labels of Runyard's containers."""

from collections.abc import Mapping

from runyard.agent.core.model import AttemptKey

RUN = "runyard.run"
ATTEMPT = "runyard.attempt"

AGENT = "runyard.agent"
"""Holds the ID of the agent's installation: several agents may share an engine."""


def container_name(key: AttemptKey) -> str:
    """The container name of an attempt. The engine refuses a second container of that name."""
    return f"runyard-{key.run_id}-{key.attempt}"


def labels_of(key: AttemptKey, agent: str) -> dict[str, str]:
    """The labels of an attempt's container."""
    return {RUN: key.run_id, ATTEMPT: str(key.attempt), AGENT: agent}


def key_of_labels(labels: Mapping[str, str]) -> AttemptKey | None:
    """The attempt whose container has these labels; None if it is none of ours."""
    attempt = labels.get(ATTEMPT, "")
    if RUN not in labels or not attempt.isdecimal():
        return None
    return AttemptKey(labels[RUN], int(attempt))


def name_of(labels: Mapping[str, str]) -> str | None:
    """The name of the container that has these labels; None if it is none of ours."""
    key = key_of_labels(labels)
    return container_name(key) if key else None
