"""From the file's text to the policy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runyard.common.service.yaml_document import (
    InvalidYamlFile,
    KeyPath,
    YamlDocument,
    YamlLimits,
    YamlProblem,
    read_yaml,
    read_yaml_file,
)
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.requirements import EMPTY_LAYER, RequirementLayer
from runyard.coordinator.core.requirements.tags import layer_from_config
from runyard.coordinator.core.routing.rules import Match, Order, Rule
from runyard.coordinator.core.scheduling.policy import PlacementPolicy, QueuePolicy, Quota
from runyard.coordinator.routing_config import checks
from runyard.coordinator.routing_config.schema import RoutingPart, RulePart, parts_of

LIMITS: Final = YamlLimits(size=256 * 1024, size_remedy="merge rules by lists of globs")
"""Bounds on a routing file; reading that much YAML takes some seconds."""


@dataclass(frozen=True)
class Routing:
    """A routing file that can be used.

    Attributes:
        warnings: What in it may be a slip.
        if_absent: What to say of a cluster that it names and no node is in, by name of the cluster.
    """

    policy: PlacementPolicy
    warnings: tuple[YamlProblem, ...] = ()
    if_absent: dict[str, YamlProblem] = field(default_factory=dict)


def load_routing(file: Path) -> Routing:
    """Read a routing file. Blocks.

    Raises:
        InvalidYamlFile: It cannot be read or used; the message names the file, and each line and key.
    """
    try:
        return _routing(read_yaml_file(file, LIMITS, quote_values=True))
    except InvalidYamlFile as error:
        raise InvalidYamlFile(error.problems, str(file)) from error


def read_routing(data: bytes) -> Routing:
    """Read the content of a routing file.

    Raises:
        InvalidYamlFile: It cannot be used; the message names each line and key.
    """
    return _routing(read_yaml(data, LIMITS, quote_values=True))


def _routing(document: YamlDocument) -> Routing:
    if document.is_empty:
        message = "is empty; write 'rules: []' if there are to be no rules"
        document.problems.append(YamlProblem(0, "", message))
    document.require_no_problems()
    part = parts_of(document)
    policy = _policy(document, part)
    document.problems.extend(checks.errors(document, part))
    document.require_no_problems()
    warnings = tuple(checks.warnings(document, part, policy))
    return Routing(policy, warnings, checks.if_absent(document, part))


def _policy(document: YamlDocument, part: RoutingPart) -> PlacementPolicy:
    return PlacementPolicy(
        defaults=_layer(document, part.defaults, ("defaults",)),
        strategy=part.placement,
        rules=tuple(_rule(document, rule, place) for place, rule in enumerate(part.rules)),
        default_cluster=part.default_cluster,
        unmatched=part.no_rule,
        impossible=part.no_node,
        most_places=part.most_places,
        queue=QueuePolicy(**dict(part.queue)),
        quotas={share: Quota(quota.least, quota.most) for share, quota in part.quotas.items()},
    )


def _rule(document: YamlDocument, rule: RulePart, place: int) -> Rule:
    return Rule(
        name=rule.name,
        match=Match(**dict(rule.match)),
        clusters=rule.clusters,
        order=rule.policy or Order.FIRST_FIT,
        spill_after=rule.spill_after,
        requirements=_layer(document, rule.set, ("rules", place, "set")),
    )


_INSTEAD: Final = {
    ("defaults", "cluster"): "write default_cluster instead, beside defaults",
    ("defaults", "node"): "would send every run to one node; leave it out",
    ("set", "cluster"): "write clusters instead, beside set",
}
"""What `defaults` and `set` must leave to keys of their own."""


def _layer(document: YamlDocument, config: dict[str, Any], path: KeyPath) -> RequirementLayer:
    """What `defaults` and `set` ask for. Each key is read by itself, so that each flaw has its own line."""
    part, before = str(path[-1]), len(document.problems)
    for key, value in config.items():
        try:
            layer_from_config({key: value}, part)
        except InvalidField as error:
            text = str(error).removeprefix(f"{key} of {part}: ").removeprefix(f"{part}: ")
        else:
            text = _INSTEAD.get((part, key), "")
        if text:
            document.problems.append(document.problem_at((*path, key), text))
    return layer_from_config(config, part) if len(document.problems) == before else EMPTY_LAYER
