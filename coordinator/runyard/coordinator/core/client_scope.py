"""Scope of clients that are bound to clusters: clusters for their runs, and runs that they see."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from runyard.coordinator.core.errors import NotAllowed
from runyard.coordinator.core.model import Launch, Run
from runyard.coordinator.core.routing.rules import Route, WeightedCluster


def restrict_route(route: Route, launched_by: str, allowed: Collection[str] | None) -> Route:
    """Return the part of a route that a client may use.

    Args:
        route: Route by the rules.
        launched_by: The client.
        allowed: Clusters that the client is bound to; None if it is not bound.

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
    """Part of the fleet that a caller sees.

    Attributes:
        who: The caller.
        clusters: Clusters that it is bound to; None if it is not bound and sees everything.
    """

    who: str
    clusters: frozenset[str] | None = None

    def includes(self, launch: Launch) -> bool:
        """True if the caller sees the launch and may end it."""
        return self.clusters is None or launch.launched_by == self.who

    def includes_cluster(self, name: str) -> bool:
        """True if the caller sees the cluster and its nodes."""
        return self.clusters is None or name in self.clusters


def require_own(known: Run, launch: Launch, allowed: Collection[str] | None) -> None:
    """Raise `NotAllowed` if a bound client launches a run that another client has launched."""
    if allowed is not None and known.launch.launched_by != launch.launched_by:
        raise NotAllowed(f"run {launch.run_id} was launched by another client")


def _listed(names: Collection[str]) -> str:
    return f"cluster {', '.join(sorted(names))}" if names else "no cluster"
