"""Conjunction of label rules: simplified, or refused if no node could satisfy all of them."""

from collections.abc import Iterable
from dataclasses import replace

from runyard.coordinator.core.requirements.labels import LabelRule, Operator


class Contradiction(Exception):
    """No label satisfies both rules."""

    def __init__(self, first: LabelRule, second: LabelRule) -> None:
        super().__init__(f"{first} contradicts {second}")
        self.first = first
        self.second = second


def joined(rules: Iterable[LabelRule]) -> tuple[LabelRule, ...]:
    """Return the smallest equivalent set of rules.

    Returns:
        Ordered by key: `zone=a|b` with `zone=b|c` is `zone=b`.

    Raises:
        Contradiction: No label satisfies two of them.
    """
    by_key: dict[str, tuple[LabelRule, ...]] = {}
    for rule in rules:
        by_key[rule.key] = _with(by_key.get(rule.key, ()), rule)
    return tuple(rule for key in sorted(by_key) for rule in sorted(by_key[key]))


def _with(held: tuple[LabelRule, ...], added: LabelRule) -> tuple[LabelRule, ...]:
    """Add a rule to those of its key, which all have different operators and do not contradict each other."""
    for rule in held:
        if (merged := _merged(rule, added)) is not None:
            others = tuple(each for each in held if each is not rule)
            return _with(others, merged)
    return (*held, added)


def _merged(first: LabelRule, second: LabelRule) -> LabelRule | None:
    """Return one rule equivalent to both; None if there is none."""
    strict, loose = sorted((first, second), key=lambda rule: _STRICTNESS.index(rule.operator))
    match strict.operator, loose.operator:
        case Operator.IS, _:
            left = tuple(value for value in strict.values if loose.holds({strict.key: value}))
            if left:
                return replace(strict, values=left)
        case Operator.HAS_NOT, (Operator.HAS_NOT | Operator.IS_NOT):
            return strict
        case Operator.AT_LEAST, Operator.AT_LEAST:
            return max(first, second, key=_bound)
        case Operator.AT_MOST, Operator.AT_MOST:
            return min(first, second, key=_bound)
        case Operator.AT_LEAST, Operator.AT_MOST if _bound(strict) <= _bound(loose):
            return None
        case ((Operator.AT_LEAST | Operator.AT_MOST), (Operator.HAS | Operator.IS_NOT)):
            return strict if loose.operator is Operator.HAS else None
        case Operator.IS_NOT, Operator.IS_NOT:
            return replace(strict, values=tuple(sorted({*strict.values, *loose.values})))
        case Operator.IS_NOT, Operator.HAS:
            return None
        case Operator.HAS, Operator.HAS:
            return strict
    raise Contradiction(first, second)


_STRICTNESS = (
    Operator.IS,
    Operator.HAS_NOT,
    Operator.AT_LEAST,
    Operator.AT_MOST,
    Operator.IS_NOT,
    Operator.HAS,
)


def _bound(rule: LabelRule) -> float:
    return float(rule.values[0])
