"""Checks across several keys, each of which is valid by itself."""

from collections.abc import Iterator

from runyard.common.quantities import show_quantity
from runyard.common.service.yaml_document import KeyPath, YamlDocument, YamlProblem
from runyard.coordinator.core.routing.matching import overshadowing
from runyard.coordinator.core.routing.rules import Order
from runyard.coordinator.core.scheduling.config import NoRuleAction, Quota, SchedulingConfig
from runyard.coordinator.routing_config.schema import RoutingPart, RulePart

_AT_ONCE = (Order.LEAST_LOADED, Order.SPREAD)
"""Orders that compare all clusters, so that none can open later than another."""


def errors(document: YamlDocument, part: RoutingPart) -> Iterator[YamlProblem]:
    """Yield the errors."""
    names: dict[str, int] = {}
    for place, rule in enumerate(part.rules):
        path = ("rules", place)
        if rule.name in names:
            first = f"rules[{names[rule.name]}]"
            yield document.problem_at(
                (*path, "name"), f"{rule.name!r} is the name of {first} too; choose another"
            )
        names.setdefault(rule.name, place)
        for key, text in _errors_of(rule):
            yield document.problem_at((*path, key), text)
    for share, quota in part.quotas.items():
        for name, guaranteed in quota.guaranteed:
            if guaranteed > quota.limit[name] and name in dict(quota.limit):
                limit = show_quantity(name, quota.limit[name])
                text = f"{show_quantity(name, guaranteed)} is more than limit.{name}, {limit}"
                yield document.problem_at(("quotas", share, "guaranteed", name), text)


def _errors_of(rule: RulePart) -> Iterator[tuple[str, str]]:
    if rule.cluster_order is not None and not rule.clusters:
        yield "cluster_order", "chooses among clusters, and the rule has none; add clusters"
    if rule.spill_after and not rule.clusters:
        yield "spill_after", "opens one cluster after another, and the rule has none; add clusters"
    if rule.spill_after and rule.cluster_order in _AT_ONCE:
        yield (
            "spill_after",
            f"{rule.cluster_order.value} compares all clusters at once; leave it out, "
            "or use first_fit or weighted",
        )
    if any(each.weight != 1 for each in rule.clusters) and rule.cluster_order is not Order.WEIGHTED:
        yield (
            "clusters",
            "has weights, which only cluster_order: weighted uses; add that, or write a list",
        )


def warnings(document: YamlDocument, part: RoutingPart, config: SchedulingConfig) -> Iterator[YamlProblem]:
    """Yield the warnings: valid settings that are probably mistakes."""
    for place, earlier in overshadowing(config.rules):
        name, other = config.rules[place].name, config.rules[earlier].name
        text = (
            f"no run reaches rule {name}: the earlier rule {other} matches all of its runs; "
            f"put {name} before {other}"
        )
        yield document.problem_at(("rules", place), text)
    for place, rule in enumerate(part.rules):
        if rule.spill_after and len(rule.clusters) == 1:
            text = "has no effect, since there is no other cluster; add one, or leave this out"
            yield document.problem_at(("rules", place, "spill_after"), text)
    if config.default_cluster and config.on_no_matching_rule is not NoRuleAction.ANYWHERE:
        text = "has no effect, since runs without a matching rule go to default_cluster"
        yield document.problem_at(("on_no_matching_rule",), text)
    if (
        config.on_no_matching_rule is not NoRuleAction.ANYWHERE
        and not config.rules
        and not config.default_cluster
    ):
        yield document.problem_at(("on_no_matching_rule",), "without rules no run is placed; add rules")
    for share, quota in config.quotas.items():
        if quota == Quota():
            yield document.problem_at(
                ("quotas", share), "has no effect; give it guaranteed or limit, or leave it out"
            )


def if_absent(document: YamlDocument, part: RoutingPart) -> dict[str, YamlProblem]:
    """Return, by name, a warning for each cluster of the file, to be shown if no node is in it."""
    named: dict[str, KeyPath] = {}
    for place, rule in enumerate(part.rules):
        for cluster in rule.clusters:
            named.setdefault(cluster.name, ("rules", place, "clusters"))
    if part.default_cluster:
        named.setdefault(part.default_cluster, ("default_cluster",))
    text = "no node is in cluster {}; check the name, or start an agent with it"
    return {name: document.problem_at(path, text.format(name)) for name, path in named.items()}
