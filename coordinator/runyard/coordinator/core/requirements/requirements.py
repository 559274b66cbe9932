"""Requirements of a run: one layer for each source, and the result of all layers."""

from dataclasses import dataclass, replace
from typing import Final, Self

from runyard.coordinator.core.requirements.labels import LabelRule
from runyard.coordinator.core.requirements.resources import NOTHING, ONE_SLOT, Resources


@dataclass(frozen=True)
class Preference:
    """A soft rule: among suitable nodes, those that satisfy more of them, by weight, rank higher."""

    label: LabelRule
    weight: int = 1


@dataclass(frozen=True)
class Keep:
    """A worker whose node has lost the coordinator continues."""


@dataclass(frozen=True)
class StopAfter:
    """A worker whose node has lost the coordinator is stopped after so many seconds."""

    seconds: float


OnDisconnect = Keep | StopAfter


@dataclass(frozen=True)
class RequirementLayer:
    """Partial requirements from one source. A field that is None or empty is left to the layers below.

    Attributes:
        source: For people: `deployment`, `rule gpu`, `code location shop`, `op train`, `run tags`.
        resources: An amount of zero cancels the amount of the layers below.
        tolerations: Taints that the run tolerates: `key`, `key=value`, or `*` for all.
        isolation: `require`, `prefer` or `none`.
        grace: Seconds between SIGTERM and SIGKILL; the other times are in seconds too.
    """

    source: str = ""
    cluster: str | None = None
    node: str | None = None
    labels: tuple[LabelRule, ...] = ()
    driver: str | None = None
    resources: Resources = NOTHING
    tolerations: tuple[str, ...] = ()
    preferences: tuple[Preference, ...] = ()
    image: str | None = None
    isolation: str | None = None
    grace: float | None = None
    max_queue_time: float | None = None
    start_timeout: float | None = None
    on_disconnect: OnDisconnect | None = None

    @property
    def is_empty(self) -> bool:
        """True if the layer sets no field."""
        return self.from_source("") == EMPTY_LAYER

    def from_source(self, source: str) -> Self:
        """Return the same requirements as the layer of that source."""
        return replace(self, source=source)


EMPTY_LAYER: Final = RequirementLayer()


@dataclass(frozen=True)
class CompiledRequirements:
    """Result of all layers, with defaults: what a node must offer. Empty strings match anything.

    Attributes:
        tolerations: Taints that the run tolerates: `key`, `key=value`, or `*` for all.
        isolation: `require`, `prefer` (also if empty) or `none`.
    """

    cluster: str = ""
    node: str = ""
    labels: tuple[LabelRule, ...] = ()
    driver: str = "process"
    resources: Resources = ONE_SLOT
    tolerations: tuple[str, ...] = ()
    preferences: tuple[Preference, ...] = ()
    image: str = ""
    isolation: str = ""


@dataclass(frozen=True)
class TimeLimits:
    """Result of all layers: time limits of a run, in seconds. None: no limit.

    Attributes:
        grace: Between SIGTERM and SIGKILL.
        stop_after: Without contact to the coordinator for so long, the node stops the worker by itself.
    """

    grace: float
    max_queue_time: float | None = None
    start_timeout: float | None = None
    stop_after: float | None = None
