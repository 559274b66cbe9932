"""What the ops of a run ask for together: all its steps share one node."""

import heapq
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from runyard.common.defaults import ISOLATION_MODES
from runyard.common.quantities import LARGEST
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.antichain import heaviest_at_once
from runyard.coordinator.core.requirements.label_sets import Contradiction, joined
from runyard.coordinator.core.requirements.labels import LabelRule
from runyard.coordinator.core.requirements.layers import overlaid
from runyard.coordinator.core.requirements.requirements import (
    NO_WANTS,
    Keep,
    Layer,
    OnDisconnect,
    Preference,
    StopAfter,
    Wants,
)
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.requirements.snapshot import JobShape, Op, Steps, Tagged
from runyard.coordinator.core.requirements.tags import PREFIX, wants_of_tags

T = TypeVar("T")

_ITEM: Final = re.compile(r"\[[^\[\]]*\]$")
"""Which item of a dynamic output a step is for: `train[a]`, or `train[?]` while that is not known."""

_NAMED: Final = 3
"""How many ops a layer names."""

_REMEDY: Final = "all steps of a run share one node, so make them agree, or put the ops into two jobs"


@dataclass(frozen=True)
class _Asking:
    """An op that asks for something."""

    op: Op
    wants: Wants


def ops_layer(
    shape: JobShape, step_keys: Collection[str], execution_config: Mapping[str, Any]
) -> Layer | None:
    """Joins the tags of the ops that will run.

    Names must agree, and labels must not contradict each other; tolerations and preferences are united; the
    longest grace and otherwise the shortest time holds. Of each resource the run gets what its steps can take
    at the same time: with one step at a time the largest amount, otherwise the largest sum over ops that do
    not wait for each other, and no more than `max_concurrent` of them. What runs for every item of a dynamic
    output counts `max_concurrent` times, or once where that is not known.

    Args:
        shape: The job.
        step_keys: Keys of the steps that will run. Empty: all.
        execution_config: The `execution` part of the run config; may be empty.

    Returns:
        None if no op asks for anything.

    Raises:
        InvalidField: A tag makes no sense, or two ops contradict each other; the message names tag and ops.
    """
    selected = _selected(shape, step_keys)
    asking = _asking(selected)
    if not asking:
        return None
    limit = _steps_at_once(shape, execution_config)
    said = [each.wants for each in asking]
    wants = Wants(
        cluster=_agreed("cluster", asking, lambda wants: wants.cluster),
        node=_agreed("node", asking, lambda wants: wants.node),
        labels=_labels(asking),
        driver=_agreed("driver", asking, lambda wants: wants.driver),
        resources=_resources(selected, asking, limit),
        tolerations=tuple(dict.fromkeys(taint for wants in said for taint in wants.tolerations)),
        preferences=_preferences(wish for wants in said for wish in wants.preferences),
        image=_agreed("image", asking, lambda wants: wants.image),
        isolation=_strictest({wants.isolation for wants in said}),
        grace=max((w.grace for w in said if w.grace is not None), default=None),
        max_queue_time=min((w.max_queue_time for w in said if w.max_queue_time is not None), default=None),
        start_timeout=min((w.start_timeout for w in said if w.start_timeout is not None), default=None),
        on_disconnect=_on_disconnect(w.on_disconnect for w in said),
    )
    return Layer(_source([each.op for each in asking]), wants)


def _strictest(modes: Collection[str | None]) -> str | None:
    return next((mode for mode in ISOLATION_MODES if mode in modes), None)


def _selected(shape: JobShape, step_keys: Collection[str]) -> list[Op]:
    if not step_keys:
        return list(shape.ops)
    handles = {_ITEM.sub("", key) for key in step_keys}
    return [op for op in shape.ops if op.handle in handles]


def _asking(ops: Sequence[Op]) -> list[_Asking]:
    read: dict[Tagged, Wants] = {}
    asking = []
    for op in ops:
        wants = NO_WANTS
        for level in op.levels:
            if level not in read:
                read[level] = wants_of_tags(dict(level.tags), level.where)
            wants = overlaid(wants, read[level])
        if wants != NO_WANTS:
            asking.append(_Asking(op, wants))
    return asking


def _source(ops: Sequence[Op]) -> str:
    names = [op.handle for op in ops]
    if len(names) == 1:
        return f"op {names[0]}"
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return f"ops {' + '.join([*names[:_NAMED], *more])}"


# How many steps run at once


def _steps_at_once(shape: JobShape, execution_config: Mapping[str, Any]) -> int | None:
    """How many steps can run at the same time; None: as many as there are."""
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


# What all of them get


def _resources(selected: Sequence[Op], asking: Sequence[_Asking], limit: int | None) -> Resources:
    waits_for = {op.handle: op.upstream for op in selected}
    names = {name for each in asking for name, _ in each.wants.resources}
    return Resources.stated({name: _at_once(name, waits_for, asking, limit) for name in names})


def _at_once(
    name: str, waits_for: Mapping[str, Sequence[str]], asking: Sequence[_Asking], limit: int | None
) -> int:
    """The largest amount of one resource that steps can take at the same time."""
    takers = [(each.op, amount) for each in asking if (amount := each.wants.resources[name])]
    copies = {op.handle: limit if op.mapped and limit else 1 for op, _ in takers}
    together = heaviest_at_once(waits_for, {op.handle: amount * copies[op.handle] for op, amount in takers})
    if limit is not None:
        together = min(together, _largest(limit, [(amount, copies[op.handle]) for op, amount in takers]))
    return min(together, LARGEST)


def _largest(count: int, amounts: Sequence[tuple[int, int]]) -> int:
    """The sum of the largest amounts, each of which is there so many times."""
    total = 0
    for amount, copies in heapq.nlargest(count, amounts):
        total += amount * min(copies, count)
        count -= min(copies, count)
    return total


def _agreed(key: str, asking: Sequence[_Asking], value: Callable[[Wants], T | None]) -> T | None:
    """What all say who say anything."""
    first: tuple[Op, T] | None = None
    for each in asking:
        if (said := value(each.wants)) is None:
            continue
        if first is None:
            first = (each.op, said)
        elif first[1] != said:
            raise _contradiction(key, first[0], first[1], each.op, said)
    return first[1] if first else None


def _labels(asking: Sequence[_Asking]) -> tuple[LabelRule, ...]:
    rules: tuple[LabelRule, ...] = ()
    for number, each in enumerate(asking):
        try:
            rules = joined((*rules, *each.wants.labels))
        except Contradiction as found:
            raise _label_contradiction(asking[:number], each, found) from None
    return rules


def _label_contradiction(earlier: Sequence[_Asking], last: _Asking, found: Contradiction) -> InvalidField:
    """Names two ops that contradict each other, or where only several do, one of these."""
    key = found.first.key
    among = [each for each in earlier if any(rule.key == key for rule in each.wants.labels)]
    for each in among:
        try:
            joined((*each.wants.labels, *last.wants.labels))
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


def _preferences(wishes: Iterable[Preference]) -> tuple[Preference, ...]:
    weights: dict[LabelRule, int] = {}
    for wish in wishes:
        weights[wish.label] = max(weights.get(wish.label, 0), wish.weight)
    return tuple(Preference(label, weight) for label, weight in weights.items())


def _on_disconnect(choices: Iterable[OnDisconnect | None]) -> OnDisconnect | None:
    """To keep the worker is to wait longest."""
    said = [choice for choice in choices if choice is not None]
    times = [choice.seconds for choice in said if isinstance(choice, StopAfter)]
    if times:
        return StopAfter(min(times))
    return Keep() if said else None
