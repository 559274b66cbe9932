"""Clients that are bound to clusters: where their runs may go, and which runs they see."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from runyard.coordinator.core.errors import NotAllowed
from runyard.coordinator.core.model import Launch, Run
from runyard.coordinator.core.routing.rules import Route, WeightedCluster


def restrict_route(route: Route, launched_by: str, allowed: Collection[str] | None) -> Route:
    """What is left of a route for runs of a client.

    Args:
        route: As the rules have it.
        launched_by: The client.
        allowed: The clusters that it is bound to. None: it is not.

    Raises:
        NotAllowed: Nothing is left.
    """
    if allowed is None or route.closed:
        return route
    named = route.clusters or tuple(WeightedCluster(name) for name in sorted(allowed))
    left = tuple(cluster for cluster in named if cluster.name in allowed)
    if not left:
        raise NotAllowed(
            f"{launched_by} may not use {_listed([cluster.name for cluster in named])}: "
            f"it is bound to {_listed(allowed)}"
        )
    return replace(route, clusters=left)


@dataclass(frozen=True)
class ClientScope:
    """What of the fleet a caller sees.

    Attributes:
        who: The caller.
        clusters: Those that it is bound to. None: it is not, and sees everything.
    """

    who: str
    clusters: frozenset[str] | None = None

    def includes(self, launch: Launch) -> bool:
        """Whether a launch is among those that the caller sees and may end."""
        return self.clusters is None or launch.launched_by == self.who

    def includes_cluster(self, name: str) -> bool:
        """Whether the caller sees a cluster and its nodes."""
        return self.clusters is None or name in self.clusters


def require_own(known: Run, launch: Launch, allowed: Collection[str] | None) -> None:
    """Raises `NotAllowed` if a client that is bound launches a run that somebody else has launched."""
    if allowed is not None and known.launch.launched_by != launch.launched_by:
        raise NotAllowed(f"run {launch.run_id} was launched by another client")


def _listed(names: Collection[str]) -> str:
    return f"cluster {', '.join(sorted(names))}" if names else "no cluster"
