"""Reader of routing files: from the text to the placement policy."""

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
from runyard.coordinator.core.scheduling.config import QueueConfig, Quota, SchedulingConfig
from runyard.coordinator.routing_config import checks
from runyard.coordinator.routing_config.deprecated_keys import rename_deprecated_keys
from runyard.coordinator.routing_config.schema import RoutingPart, RulePart, parts_of

LIMITS: Final = YamlLimits(size=256 * 1024, size_remedy="merge rules by lists of globs")
"""Bounds on a routing file; reading that much YAML takes some seconds."""


@dataclass(frozen=True)
class Routing:
    """Content of a valid routing file.

    Attributes:
        warnings: Probable mistakes and deprecated keys.
        if_absent: By name of each cluster in the file, a warning to be shown if no node is in it.
    """

    config: SchedulingConfig
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
    deprecations = rename_deprecated_keys(document)
    document.require_no_problems()
    part = parts_of(document)
    config = _config(document, part)
    document.problems.extend(checks.errors(document, part))
    document.require_no_problems()
    warnings = (*deprecations, *checks.warnings(document, part, config))
    return Routing(config, warnings, checks.if_absent(document, part))


def _config(document: YamlDocument, part: RoutingPart) -> SchedulingConfig:
    return SchedulingConfig(
        defaults=_layer(document, part.defaults, ("defaults",)),
        strategy=part.placement,
        rules=tuple(_rule(document, rule, place) for place, rule in enumerate(part.rules)),
        default_cluster=part.default_cluster,
        on_no_matching_rule=part.on_no_matching_rule,
        on_no_eligible_node=part.on_no_eligible_node,
        max_placement_attempts=part.max_placement_attempts,
        queue=QueueConfig(**dict(part.queue)),
        quotas={share: Quota(quota.guaranteed, quota.limit) for share, quota in part.quotas.items()},
    )


def _rule(document: YamlDocument, rule: RulePart, place: int) -> Rule:
    return Rule(
        name=rule.name,
        match=Match(**dict(rule.match)),
        clusters=rule.clusters,
        order=rule.cluster_order or Order.FIRST_FIT,
        spill_after=rule.spill_after,
        requirements=_layer(document, rule.set, ("rules", place, "set")),
    )


_INSTEAD: Final = {
    ("defaults", "cluster"): "write default_cluster instead, beside defaults",
    ("defaults", "node"): "would send every run to one node; leave it out",
    ("set", "cluster"): "write clusters instead, beside set",
}
"""Remedies for requirements that `defaults` and `set` must leave to other keys."""


def _layer(document: YamlDocument, config: dict[str, Any], path: KeyPath) -> RequirementLayer:
    """Return the layer of `defaults` or `set`, read key by key so that each problem has its own line."""
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
