"""Environment variables of a worker, with all references resolved."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from runyard.common.secrets import secret_names


@dataclass(frozen=True)
class ResolvedEnvironment:
    """Variables of one launch's worker.

    Attributes:
        by_owner: Set by the agent's settings.
        by_launch: Set by the code location and the launch. They override `by_owner`.
        referenced: Names of variables that were looked up. Their values are secrets whatever the names are.
    """

    by_owner: Mapping[str, str] = field(repr=False)
    by_launch: Mapping[str, str] = field(repr=False)
    referenced: frozenset[str] = frozenset()

    def secrets_among(self, environment: Mapping[str, str]) -> list[str]:
        """Return the names of the variables whose values are secrets."""
        return sorted({*secret_names(environment), *(self.referenced & environment.keys())})
