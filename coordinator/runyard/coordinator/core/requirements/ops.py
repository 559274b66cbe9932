"""Requirements of all ops of a run together: its steps share one node."""

import heapq
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from runyard.common.defaults import ISOLATION_MODES
from runyard.common.quantities import LARGEST
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.concurrency_bound import most_at_once
from runyard.coordinator.core.requirements.label_sets import Contradiction, joined
from runyard.coordinator.core.requirements.labels import LabelRule
from runyard.coordinator.core.requirements.layers import overlaid
from runyard.coordinator.core.requirements.requirements import (
    EMPTY_LAYER,
    Keep,
    OnDisconnect,
    Preference,
    RequirementLayer,
    StopAfter,
)
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.requirements.snapshot import JobShape, Op, Steps, Tagged
from runyard.coordinator.core.requirements.tags import PREFIX, layer_from_tags

T = TypeVar("T")

_ITEM: Final = re.compile(r"\[[^\[\]]*\]$")
"""Item of a dynamic output that a step is for: `train[a]`, or `train[?]` while it is not known."""

_NAMED: Final = 3
"""Ops that the source of a layer names; the rest are counted."""

_REMEDY: Final = "all steps of a run share one node, so make them agree, or put the ops into two jobs"


@dataclass(frozen=True)
class _OpRequirements:
    """An op that sets requirements."""

    op: Op
    layer: RequirementLayer


def ops_layer(
    shape: JobShape, step_keys: Collection[str], execution_config: Mapping[str, Any]
) -> RequirementLayer | None:
    """Merge the tags of the ops that will run.

    Names must agree, and labels must not contradict each other; tolerations and preferences are united; the
    longest grace and otherwise the shortest time holds. Of each resource the run gets what its steps can take
    at the same time: with one step at a time the largest amount, otherwise a bound on the largest sum over
    ops that do not wait for each other, and no more than `max_concurrent` of them. An op that runs for every
    item of a dynamic output counts `max_concurrent` times, or once where that is not known.

    Args:
        shape: The job.
        step_keys: Keys of the steps that will run. Empty: all.
        execution_config: The `execution` part of the run config; may be empty.

    Returns:
        None if no op sets requirements.

    Raises:
        InvalidField: A tag is invalid, or two ops contradict each other; the message names tag and ops.
    """
    selected = _selected(shape, step_keys)
    tagged = _tagged_ops(selected)
    if not tagged:
        return None
    limit = _steps_at_once(shape, execution_config)
    layers = [each.layer for each in tagged]
    return RequirementLayer(
        source=_source([each.op for each in tagged]),
        cluster=_agreed("cluster", tagged, lambda layer: layer.cluster),
        node=_agreed("node", tagged, lambda layer: layer.node),
        labels=_labels(tagged),
        driver=_agreed("driver", tagged, lambda layer: layer.driver),
        resources=_resources(selected, tagged, limit),
        tolerations=tuple(dict.fromkeys(taint for layer in layers for taint in layer.tolerations)),
        preferences=_preferences(each for layer in layers for each in layer.preferences),
        image=_agreed("image", tagged, lambda layer: layer.image),
        isolation=_strictest({layer.isolation for layer in layers}),
        grace=max((each.grace for each in layers if each.grace is not None), default=None),
        max_queue_time=min(
            (each.max_queue_time for each in layers if each.max_queue_time is not None), default=None
        ),
        start_timeout=min(
            (each.start_timeout for each in layers if each.start_timeout is not None), default=None
        ),
        on_disconnect=_on_disconnect(each.on_disconnect for each in layers),
    )


def _strictest(modes: Collection[str | None]) -> str | None:
    return next((mode for mode in ISOLATION_MODES if mode in modes), None)


def _selected(shape: JobShape, step_keys: Collection[str]) -> list[Op]:
    if not step_keys:
        return list(shape.ops)
    handles = {_ITEM.sub("", key) for key in step_keys}
    return [op for op in shape.ops if op.handle in handles]


def _tagged_ops(ops: Sequence[Op]) -> list[_OpRequirements]:
    parsed: dict[Tagged, RequirementLayer] = {}
    tagged = []
    for op in ops:
        layer = EMPTY_LAYER
        for level in op.levels:
            if level not in parsed:
                parsed[level] = layer_from_tags(dict(level.tags), level.where)
            layer = overlaid(layer, parsed[level])
        if not layer.is_empty:
            tagged.append(_OpRequirements(op, layer))
    return tagged


def _source(ops: Sequence[Op]) -> str:
    names = [op.handle for op in ops]
    if len(names) == 1:
        return f"op {names[0]}"
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return f"ops {' + '.join([*names[:_NAMED], *more])}"


# Concurrency of steps


def _steps_at_once(shape: JobShape, execution_config: Mapping[str, Any]) -> int | None:
    """Return the limit on steps that run at the same time; None: no limit."""
    if shape.steps is Steps.ONE_BY_ONE:
        return 1
    config = _part(execution_config, "config") or _part(_json_object(shape.execution_default), "config")
    if shape.steps is Steps.RUN_CONFIG:
        if "in_process" in config:
            return 1
        config = _part(config, "multiprocess")
    limit = config.get("max_concurrent")
    # Dagster's 0 means as many as the node has cores, and the node is not chosen yet.
    return limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, Mapping) else {}


# Merging of fields


def _resources(selected: Sequence[Op], tagged: Sequence[_OpRequirements], limit: int | None) -> Resources:
    waits_for = {op.handle: op.upstream for op in selected}
    names = {name for each in tagged for name, _ in each.layer.resources}
    return Resources.stated({name: _at_once(name, waits_for, tagged, limit) for name in names})


def _at_once(
    name: str, waits_for: Mapping[str, Sequence[str]], tagged: Sequence[_OpRequirements], limit: int | None
) -> int:
    """Return a bound on the amount of one resource that steps can take at the same time."""
    takers = [(each.op, amount) for each in tagged if (amount := each.layer.resources[name])]
    copies = {op.handle: limit if op.mapped and limit else 1 for op, _ in takers}
    together = most_at_once(waits_for, {op.handle: amount * copies[op.handle] for op, amount in takers})
    if limit is not None:
        together = min(together, _largest(limit, [(amount, copies[op.handle]) for op, amount in takers]))
    return min(together, LARGEST)


def _largest(count: int, amounts: Sequence[tuple[int, int]]) -> int:
    """Return the sum of the `count` largest amounts; each pair is an amount and its number of copies."""
    total = 0
    for amount, copies in heapq.nlargest(count, amounts):
        total += amount * min(copies, count)
        count -= min(copies, count)
    return total


def _agreed(
    key: str, tagged: Sequence[_OpRequirements], value: Callable[[RequirementLayer], T | None]
) -> T | None:
    """Return the value on which all ops agree that set the field; None if none does."""
    first: tuple[Op, T] | None = None
    for each in tagged:
        if (own := value(each.layer)) is None:
            continue
        if first is None:
            first = (each.op, own)
        elif first[1] != own:
            raise _contradiction(key, first[0], first[1], each.op, own)
    return first[1] if first else None


def _labels(tagged: Sequence[_OpRequirements]) -> tuple[LabelRule, ...]:
    rules: tuple[LabelRule, ...] = ()
    for number, each in enumerate(tagged):
        try:
            rules = joined((*rules, *each.layer.labels))
        except Contradiction as found:
            raise _label_contradiction(tagged[:number], each, found) from None
    return rules


def _label_contradiction(
    earlier: Sequence[_OpRequirements], last: _OpRequirements, found: Contradiction
) -> InvalidField:
    """Name two ops that contradict each other; if it takes more than two, name the last and some others."""
    key = found.first.key
    among = [each for each in earlier if any(rule.key == key for rule in each.layer.labels)]
    for each in among:
        try:
            joined((*each.layer.labels, *last.layer.labels))
        except Contradiction as direct:
            return _contradiction("labels", each.op, direct.first, last.op, direct.second)
    others = " and ".join(each.op.handle for each in among[:_NAMED])
    return InvalidField(
        f"tag {PREFIX}labels",
        f"ops {others} together want {found.first}, but op {last.op.handle} wants {found.second}; {_REMEDY}",
    )


def _contradiction(key: str, first: Op, its: object, second: Op, that: object) -> InvalidField:
    problem = f"op {first.handle} wants {its}, but op {second.handle} wants {that}; {_REMEDY}"
    return InvalidField(f"tag {PREFIX}{key}", problem)


def _preferences(preferences: Iterable[Preference]) -> tuple[Preference, ...]:
    weights: dict[LabelRule, int] = {}
    for each in preferences:
        weights[each.label] = max(weights.get(each.label, 0), each.weight)
    return tuple(Preference(label, weight) for label, weight in weights.items())


def _on_disconnect(choices: Iterable[OnDisconnect | None]) -> OnDisconnect | None:
    """Return the shortest time; `keep` counts as the longest."""
    given = [choice for choice in choices if choice is not None]
    times = [choice.seconds for choice in given if isinstance(choice, StopAfter)]
    if times:
        return StopAfter(min(times))
    return Keep() if given else None
