"""What a run asks for: by layer as somebody wrote it, and resolved."""

from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.requirements.labels import LabelRule
from runyard.coordinator.core.requirements.resources import NOTHING, ONE_SLOT, Resources


@dataclass(frozen=True)
class Preference:
    """A wish: of the nodes that will do, those for which more of these hold are better."""

    label: LabelRule
    weight: int = 1


@dataclass(frozen=True)
class Requirements:
    """What a node must offer. Empty strings match anything.

    Attributes:
        tolerations: Taints that the run does not mind: `key`, `key=value`, or `*` for all.
        isolation: One of `ISOLATION_MODES`, or empty for the second.
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
class Policies:
    """Time limits of a run, in seconds. None: no limit.

    Attributes:
        stop_after: Without contact to the coordinator for so long, the node stops the worker by itself.
    """

    grace: float
    max_queue_time: float | None = None
    start_timeout: float | None = None
    stop_after: float | None = None


@dataclass(frozen=True)
class Keep:
    """A worker whose node has lost the coordinator goes on."""


@dataclass(frozen=True)
class StopAfter:
    """A worker whose node has lost the coordinator is stopped after so many seconds."""

    seconds: float


OnDisconnect = Keep | StopAfter


@dataclass(frozen=True)
class Wants:
    """What one layer says. What is None or empty, it leaves to the layers below."""

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


NO_WANTS: Final = Wants()


@dataclass(frozen=True)
class Layer:
    """What somebody wants, and who: `deployment`, `rule gpu`, `code location shop`, `op train`, `tags`."""

    source: str
    wants: Wants
