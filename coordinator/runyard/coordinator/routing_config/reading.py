"""From the file's text to the policy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.requirements import NO_WANTS, Wants
from runyard.coordinator.core.requirements.tags import wants_of_config
from runyard.coordinator.core.routing.rules import Match, Order, Rule
from runyard.coordinator.core.scheduling.policy import PlacementPolicy, QueuePolicy, Quota
from runyard.coordinator.routing_config import checks
from runyard.coordinator.routing_config.document import Document, Flaw, KeyPath, RoutingFileError, read_yaml
from runyard.coordinator.routing_config.schema import RoutingPart, RulePart, parts_of

LARGEST: Final = 256 * 1024
"""Size of the largest routing file, in bytes; reading that much YAML takes some seconds."""


@dataclass(frozen=True)
class Routing:
    """A routing file that can be used.

    Attributes:
        warnings: What in it may be a slip.
        if_absent: What to say of a cluster that it names and no node is in, by name of the cluster.
    """

    policy: PlacementPolicy
    warnings: tuple[Flaw, ...] = ()
    if_absent: dict[str, Flaw] = field(default_factory=dict)


def load_routing(file: Path) -> Routing:
    """Reads a routing file. Blocks.

    Raises:
        RoutingFileError: It cannot be read or used; the message names the file, and each line and key.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        text = f"cannot be read ({error.strerror}); check the path"
        raise RoutingFileError([Flaw(0, "", text)], str(file)) from error
    try:
        return read_routing(data)
    except RoutingFileError as error:
        raise RoutingFileError(error.flaws, str(file)) from error


def read_routing(data: bytes) -> Routing:
    """Reads the content of a routing file.

    Raises:
        RoutingFileError: It cannot be used; the message names each line and key.
    """
    if len(data) > LARGEST:
        raise RoutingFileError([Flaw(0, "", f"has more than {LARGEST} bytes; merge rules by lists of globs")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RoutingFileError([Flaw(line, "", "is not UTF-8; save it as that")]) from error
    document = read_yaml(text)
    part = parts_of(document)
    policy = _policy(document, part)
    document.flaws.extend(checks.errors(document, part))
    document.require_no_flaws()
    warnings = tuple(checks.warnings(document, part, policy))
    return Routing(policy, warnings, checks.if_absent(document, part))


def _policy(document: Document, part: RoutingPart) -> PlacementPolicy:
    return PlacementPolicy(
        defaults=_wants(document, part.defaults, ("defaults",)),
        strategy=part.placement,
        rules=tuple(_rule(document, rule, place) for place, rule in enumerate(part.rules)),
        default_cluster=part.default_cluster,
        unmatched=part.no_rule,
        impossible=part.no_node,
        most_places=part.most_places,
        queue=QueuePolicy(**dict(part.queue)),
        quotas={share: Quota(quota.least, quota.most) for share, quota in part.quotas.items()},
    )


def _rule(document: Document, rule: RulePart, place: int) -> Rule:
    return Rule(
        name=rule.name,
        match=Match(**dict(rule.match)),
        clusters=rule.clusters,
        order=rule.policy or Order.FIRST_FIT,
        spill_after=rule.spill_after,
        wants=_wants(document, rule.set, ("rules", place, "set")),
    )


_INSTEAD: Final = {
    ("defaults", "cluster"): "write default_cluster instead, beside defaults",
    ("defaults", "node"): "would send every run to one node; leave it out",
    ("set", "cluster"): "write clusters instead, beside set",
}
"""What `defaults` and `set` must leave to keys of their own."""


def _wants(document: Document, config: dict[str, Any], path: KeyPath) -> Wants:
    """What `defaults` and `set` ask for. Each key is read by itself, so that each flaw has its own line."""
    part, before = str(path[-1]), len(document.flaws)
    for key, value in config.items():
        try:
            wants_of_config({key: value}, part)
        except InvalidField as error:
            text = str(error).removeprefix(f"{key} of {part}: ").removeprefix(f"{part}: ")
        else:
            text = _INSTEAD.get((part, key), "")
        if text:
            document.flaws.append(document.flaw((*path, key), text))
    return wants_of_config(config, part) if len(document.flaws) == before else NO_WANTS
