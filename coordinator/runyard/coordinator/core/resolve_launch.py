"""Requirements and route of a launch under the operator's current configuration."""

from dataclasses import replace
from typing import Final, assert_never

from runyard.coordinator.core.client_scope import restrict_route
from runyard.coordinator.core.errors import LaunchRefused
from runyard.coordinator.core.model import Launch
from runyard.coordinator.core.requirements.layers import compile_layers
from runyard.coordinator.core.requirements.requirements import CompiledRequirements, RequirementLayer
from runyard.coordinator.core.routing.matching import first_match
from runyard.coordinator.core.routing.rules import ANYWHERE, Route, Rule, WeightedCluster
from runyard.coordinator.core.scheduling.config import NoRuleAction, QueueConfig, SchedulingConfig

DEFAULTS: Final = "coordinator defaults"
DEPLOYMENT: Final = "deployment"
"""Sources of the layers below the rule's."""


def resolved(launch: Launch, config: SchedulingConfig) -> Launch:
    """The launch with its requirements, time limits, route and share by this policy.

    A launch without layers is left as it is: it was adopted from its agent, and what it asked for is lost.

    Raises:
        FleetError: The layers contradict each other, no rule is for the run and the policy wants one, or the
            client may not use any of the run's clusters.
    """
    if not launch.layers:
        return launch
    rule = first_match(config.rules, launch)
    requirements, time_limits = compile_layers(_layers(launch, config, rule))
    route = _route(launch, config, rule, requirements)
    return replace(
        launch,
        requirements=requirements,
        time_limits=time_limits,
        route=restrict_route(route, launch.launched_by, config.client_clusters.get(launch.launched_by)),
        share=_share(launch, config.queue),
    )


def all_layers(launch: Launch, config: SchedulingConfig) -> list[RequirementLayer]:
    """Return all layers of the run's requirements, lowest precedence first."""
    return _layers(launch, config, first_match(config.rules, launch))


def _layers(launch: Launch, config: SchedulingConfig, rule: Rule | None) -> list[RequirementLayer]:
    below = [layer for layer in launch.layers if layer.source == DEPLOYMENT]
    above = [layer for layer in launch.layers if layer.source != DEPLOYMENT]
    defaults = config.defaults.from_source(DEFAULTS)
    if rule is None:
        return [defaults, *below, *above]
    if rule.clusters:  # they override the deployment's cluster and node
        below = [replace(layer, cluster=None, node=None) for layer in below]
    return [defaults, *below, rule.requirements.from_source(f"rule {rule.name}"), *above]


def _route(
    launch: Launch, config: SchedulingConfig, rule: Rule | None, requirements: CompiledRequirements
) -> Route:
    """Return the route; the run's own cluster or node overrides the rule's."""
    name = rule.name if rule else ""
    if requirements.cluster:
        return Route(rule=name, clusters=(WeightedCluster(requirements.cluster),))
    if requirements.node:
        return Route(rule=name)
    if rule is not None and rule.clusters:
        return Route(name, rule.clusters, rule.order, rule.spill_after)
    if config.default_cluster:
        return Route(rule=name, clusters=(WeightedCluster(config.default_cluster),))
    return Route(rule=name) if rule is not None else _route_without_rule(launch, config.on_no_matching_rule)


def _route_without_rule(launch: Launch, on_no_matching_rule: NoRuleAction) -> Route:
    reason = f"no routing rule matches job {launch.job!r} of code location {launch.location!r}"
    match on_no_matching_rule:
        case NoRuleAction.ANYWHERE:
            return ANYWHERE
        case NoRuleAction.QUEUE:
            return Route(closed=f"{reason}; it waits for one")
        case NoRuleAction.FAIL:
            raise LaunchRefused(
                f"{reason}, and the routing file refuses such runs (on_no_matching_rule: fail); "
                "add a rule to it, or name a cluster by the run's tag runyard/cluster"
            )
        case _:
            assert_never(on_no_matching_rule)


def _share(launch: Launch, queue: QueueConfig) -> str:
    tagged = launch.spec.tags.get(queue.share_by, "") if queue.share_by else ""
    return tagged or launch.location
