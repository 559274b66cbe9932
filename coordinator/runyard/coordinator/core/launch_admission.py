"""Admission of a launch: whether the fleet can ever take it, and the run that enters the queue."""

from dataclasses import replace

from runyard.coordinator.core.errors import FleetError, LaunchRefused, QueueFull
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.model import Finished, Instant, Launch, Queued, Run, Times
from runyard.coordinator.core.resolve_launch import resolved
from runyard.coordinator.core.routing.rules import Route
from runyard.coordinator.core.scheduling.config import NoNodeAction
from runyard.coordinator.core.scheduling.filters import Ask
from runyard.coordinator.core.scheduling.reasons import what_is_missing
from runyard.v1 import run_pb2

NODE_FAILURES = frozenset(
    {
        run_pb2.OUTCOME_KIND_NODE_LOST,
        run_pb2.OUTCOME_KIND_START_FAILED,
        run_pb2.OUTCOME_KIND_EXIT_UNKNOWN,
    }
)
"""Outcomes after which another node is the better choice for the next attempt."""

MAX_AVOIDED = 16
"""Nodes that a run avoids at most."""


def queued_run(known: Run | None, launch: Launch, now: Instant) -> Run:
    """The run as it enters the queue; `known` is what was known of it before."""
    return Run(
        launch=launch,
        attempt=0 if known is None else known.attempt + 1,
        phase=Queued(),
        times=Times(launched=now.wall),
        queued_since=now.monotonic,
        since=now.monotonic,
        avoided=() if known is None else _avoided(known),
    )


def _avoided(known: Run) -> tuple[str, ...]:
    """The nodes that failed earlier attempts, the latest last."""
    if not isinstance(known.phase, Finished) or known.place is None:
        return known.avoided
    if known.phase.outcome.kind not in NODE_FAILURES:
        return known.avoided
    others = [node_id for node_id in known.avoided if node_id != known.place.node]
    return (*others, known.place.node)[-MAX_AVOIDED:]


def require_acceptable(fleet: Fleet, launch: Launch) -> None:
    """Raises `LaunchRefused` if no node could ever take the run, `QueueFull` if as many runs wait as may."""
    _require_possible(fleet, launch)
    _require_room(fleet, launch.share)


def _require_possible(fleet: Fleet, launch: Launch) -> None:
    if fleet.config.on_no_eligible_node is NoNodeAction.QUEUE or launch.route.closed:
        return
    if missing := what_is_missing(fleet.index, Ask.of(launch)):
        raise LaunchRefused(missing)


def _require_room(fleet: Fleet, share: str) -> None:
    limits = fleet.config.queue
    for whose, waiting, limit, name in (
        ("runs", len(fleet.queue), limits.limit, "limit"),
        (f"runs of {share}", fleet.queue.waiting_in(share), limits.limit_per_share, "limit_per_share"),
    ):
        if waiting >= limit:
            raise QueueFull(
                f"{waiting} {whose} are waiting, as many as the queue takes ({name} {limit}); "
                f"launch again when some have been placed, or raise queue.{name} in the routing file"
            )


def require_bearable(fleet: Fleet, launch: Launch) -> None:
    """Raises `LaunchRefused` if a node that is merely between two heartbeats would stop the run."""
    lease = fleet.leases.lease(len(fleet.nodes))
    stop_after = launch.time_limits.stop_after
    if stop_after is not None and stop_after < lease:
        raise LaunchRefused(
            f"policies.stop_after is {stop_after:g} s, shorter than a node's lease in this fleet "
            f"({lease:g} s); make it longer"
        )


def current_launch(fleet: Fleet, run: Run) -> Launch:
    """The run's launch by the policy of the moment; where that allows none, with a route that is closed."""
    try:
        launch = resolved(run.launch, fleet.config)
        require_bearable(fleet, launch)
    except FleetError as error:
        return replace(run.launch, route=Route(closed=str(error)))
    return launch
