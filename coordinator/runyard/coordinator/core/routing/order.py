"""Order in which a run tries the clusters of its route, and the time when each of them opens to it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from runyard.coordinator.core.routing.rules import Order, Route, WeightedCluster


@dataclass(frozen=True)
class ClusterLoad:
    """Load of a cluster.

    Attributes:
        utilization: Part of its scarcest resource that is in use, from 0 to 1.
        live_runs: Runs that may have a worker there.
    """

    utilization: float
    live_runs: int


NO_NODES: Final = ClusterLoad(math.inf, 0)
"""Load of a cluster without nodes: in any order, it comes after those that have nodes."""


def cluster_order(route: Route, run_id: str, loads: Mapping[str, ClusterLoad]) -> tuple[str, ...]:
    """Return the clusters of the route, best first; none if any cluster will do.

    Args:
        route: The run's.
        run_id: Seed of the order by weight: the same run always gets the same order.
        loads: Of the clusters that have nodes. Only LEAST_LOADED and SPREAD use them.
    """
    clusters = route.clusters
    match route.order:
        case Order.FIRST_FIT:
            pass
        case Order.WEIGHTED:
            clusters = tuple(sorted(clusters, key=lambda each: _draw(each, run_id), reverse=True))
        case Order.LEAST_LOADED:
            clusters = tuple(sorted(clusters, key=lambda each: loads.get(each.name, NO_NODES).utilization))
        case Order.SPREAD:
            clusters = tuple(sorted(clusters, key=lambda each: _runs(loads.get(each.name, NO_NODES))))
    return tuple(each.name for each in clusters)


def open_count(route: Route, waited: float) -> int:
    """Return how many clusters, from the front of the order, are open after so many seconds of waiting."""
    if not _opens_one_by_one(route):
        return len(route.clusters)
    return sum(place * route.spill_after <= max(waited, 0.0) for place in range(len(route.clusters)))


def next_opening(route: Route, waited: float) -> float | None:
    """Return the total seconds of waiting after which the next cluster opens; None: all are open.

    `open_count` of the result is larger than that of `waited`.
    """
    already = open_count(route, waited)
    return None if already == len(route.clusters) else already * route.spill_after


def _opens_one_by_one(route: Route) -> bool:
    return route.spill_after > 0 and route.order in (Order.FIRST_FIT, Order.WEIGHTED)


def _runs(load: ClusterLoad) -> tuple[bool, int]:
    return load is NO_NODES, load.live_runs


def _draw(cluster: WeightedCluster, run_id: str) -> tuple[float, str]:
    """Return a sort key of weighted rendezvous hashing: the chance to be first is the part of all weights.

    A new cluster or weight moves as few runs as possible. See Schindelhauer and Schomaker,
    "Weighted Distributed Hash Tables", SPAA 2005 (logarithmic method).
    """
    digest = blake2b(f"{cluster.name}\0{run_id}".encode(), digest_size=8).digest()
    chance = ((int.from_bytes(digest) >> 12) + 0.5) / 2**52  # strictly between 0 and 1
    return cluster.weight / -math.log(chance), cluster.name
