"""What is wrong, or looks wrong, with keys that are each right by themselves."""

from collections.abc import Iterator

from runyard.common.quantities import show_quantity
from runyard.common.service.yaml_document import KeyPath, YamlDocument, YamlProblem
from runyard.coordinator.core.routing.matching import overshadowing
from runyard.coordinator.core.routing.rules import Order
from runyard.coordinator.core.scheduling.policy import PlacementPolicy, Quota, Unmatched
from runyard.coordinator.routing_config.schema import RoutingPart, RulePart

_AT_ONCE = (Order.LEAST_LOADED, Order.SPREAD)
"""They compare clusters, so that none can open before another."""


def errors(document: YamlDocument, part: RoutingPart) -> Iterator[YamlProblem]:
    """What cannot be meant."""
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
        for name, least in quota.least:
            if least > quota.most[name] and name in dict(quota.most):
                most = show_quantity(name, quota.most[name])
                text = f"{show_quantity(name, least)} is more than most.{name}, {most}"
                yield document.problem_at(("quotas", share, "least", name), text)


def _errors_of(rule: RulePart) -> Iterator[tuple[str, str]]:
    if rule.policy is not None and not rule.clusters:
        yield "policy", "chooses among clusters, and the rule has none; add clusters"
    if rule.spill_after and not rule.clusters:
        yield "spill_after", "goes from one cluster to the next, and the rule has none; add clusters"
    if rule.spill_after and rule.policy in _AT_ONCE:
        yield (
            "spill_after",
            f"{rule.policy.value} compares all clusters at once; leave it out, or use first_fit or weighted",
        )
    if any(each.weight != 1 for each in rule.clusters) and rule.policy is not Order.WEIGHTED:
        yield "clusters", "has weights, which count for policy: weighted alone; add that, or write a list"


def warnings(document: YamlDocument, part: RoutingPart, policy: PlacementPolicy) -> Iterator[YamlProblem]:
    """What may be a slip."""
    for place, earlier in overshadowing(policy.rules):
        name, other = policy.rules[place].name, policy.rules[earlier].name
        text = f"no run reaches rule {name}: rule {other} before it takes them all; put {name} before {other}"
        yield document.problem_at(("rules", place), text)
    for place, rule in enumerate(part.rules):
        if rule.spill_after and len(rule.clusters) == 1:
            text = "there is no other cluster to go to; add one, or leave this out"
            yield document.problem_at(("rules", place, "spill_after"), text)
    if policy.default_cluster and policy.unmatched is not Unmatched.ANYWHERE:
        text = "has no effect, since every run that no rule matches goes to default_cluster"
        yield document.problem_at(("no_rule",), text)
    if policy.unmatched is not Unmatched.ANYWHERE and not policy.rules and not policy.default_cluster:
        yield document.problem_at(("no_rule",), "without any rule no run is placed; add rules")
    for share, quota in policy.quotas.items():
        if quota == Quota():
            yield document.problem_at(
                ("quotas", share), "bounds nothing; give it least or most, or leave it out"
            )


def if_absent(document: YamlDocument, part: RoutingPart) -> dict[str, YamlProblem]:
    """What to say of each cluster if no node is in it."""
    named: dict[str, KeyPath] = {}
    for place, rule in enumerate(part.rules):
        for cluster in rule.clusters:
            named.setdefault(cluster.name, ("rules", place, "clusters"))
    if part.default_cluster:
        named.setdefault(part.default_cluster, ("default_cluster",))
    text = "no node is in cluster {}; check the name, or start an agent with it"
    return {name: document.problem_at(path, text.format(name)) for name, path in named.items()}
