"""Event: another scheduling configuration, from the routing file."""

from collections.abc import Iterator
from dataclasses import replace

from runyard.coordinator.core.events.place_waiting import place_waiting
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.launch_admission import current_launch
from runyard.coordinator.core.model import Instant, Launch
from runyard.coordinator.core.scheduling.config import SchedulingConfig


def on_config_change(fleet: Fleet, now: Instant, config: SchedulingConfig) -> int:
    """Event: the configuration changes -> waiting runs are re-evaluated; placed runs keep their assignment.

    A waiting run that could no longer be launched stays in the queue, with the reason.

    Returns:
        Number of waiting runs whose requirements or route changed.
    """
    # The clusters of bound clients are not in the routing file.
    fleet.apply_config(replace(config, client_clusters=fleet.config.client_clusters))
    changed = 0
    for run in fleet.waiting():
        launch = current_launch(fleet, run)
        if _decided(launch) != _decided(run.launch):
            fleet.put(replace(run, launch=launch), "the routing rules have changed")
            changed += 1
    place_waiting(fleet, now)
    return changed


def _decided(launch: Launch) -> tuple[object, ...]:
    return launch.requirements, launch.time_limits, launch.route, launch.share


def changes(before: SchedulingConfig, after: SchedulingConfig) -> list[str]:
    """Return the differences, in a few words each."""
    return [
        *_changed_rules(before, after),
        *_changed_settings(before, after),
        *_changed_quotas(before, after),
    ]


def _changed_rules(before: SchedulingConfig, after: SchedulingConfig) -> Iterator[str]:
    old = {rule.name: rule for rule in before.rules}
    new = {rule.name: rule for rule in after.rules}
    yield from (f"rule {name} removed" for name in old if name not in new)
    yield from (f"rule {name} added" for name in new if name not in old)
    yield from (f"rule {name} changed" for name in new if name in old and new[name] != old[name])
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield "rules in another order"


def _changed_settings(before: SchedulingConfig, after: SchedulingConfig) -> Iterator[str]:
    for name, was, now in (
        ("defaults", before.defaults, after.defaults),
        ("placement", before.strategy, after.strategy),
        ("default_cluster", before.default_cluster, after.default_cluster),
        ("on_no_matching_rule", before.on_no_matching_rule, after.on_no_matching_rule),
        ("on_no_eligible_node", before.on_no_eligible_node, after.on_no_eligible_node),
        ("max_placement_attempts", before.max_placement_attempts, after.max_placement_attempts),
        ("queue", before.queue, after.queue),
    ):
        if was != now:
            yield f"{name} changed"


def _changed_quotas(before: SchedulingConfig, after: SchedulingConfig) -> Iterator[str]:
    for name in sorted(before.quotas.keys() | after.quotas.keys()):
        match before.quotas.get(name), after.quotas.get(name):
            case None, _:
                yield f"quota {name} added"
            case _, None:
                yield f"quota {name} removed"
            case was, now if was != now:
                yield f"quota {name} changed"
