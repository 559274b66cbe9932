"""Rules on the labels of nodes, as runs write them: `zone=a|b`, `!spot`, `cores>=16`."""

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from runyard.common.names import LABEL_KEY, LABEL_VALUE

FORMS: Final = "write zone=a, zone=a|b, zone!=a|b, gpu, !spot, cores>=16 or cores<=4"
"""Remedy for text that is not a rule."""


class Operator(enum.StrEnum):
    """Comparison of a rule."""

    IS = "="
    IS_NOT = "!="
    HAS = "has"
    HAS_NOT = "!"
    AT_LEAST = ">="
    AT_MOST = "<="


_COMPARED: Final = re.compile(r"(?P<key>[^=!<>]+)(?P<operator>!=|>=|<=|=)(?P<values>.*)", re.DOTALL)
"""No two adjacent groups both match spaces: otherwise a text full of spaces takes quadratic time."""


@dataclass(frozen=True, order=True)
class LabelRule:
    """One rule. `values` is empty for HAS and HAS_NOT, and holds one number for AT_LEAST and AT_MOST."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """True if a node with these labels satisfies the rule."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IS:
                return value in self.values
            case Operator.IS_NOT:
                return value not in self.values
            case Operator.HAS:
                return value is not None
            case Operator.HAS_NOT:
                return value is None
            case Operator.AT_LEAST:
                return (number := _number(value)) is not None and number >= float(self.values[0])
            case Operator.AT_MOST:
                return (number := _number(value)) is not None and number <= float(self.values[0])

    def __str__(self) -> str:
        match self.operator:
            case Operator.HAS:
                return self.key
            case Operator.HAS_NOT:
                return f"!{self.key}"
            case _:
                return f"{self.key}{self.operator}{'|'.join(self.values)}"


def parse_label_rule(text: str) -> LabelRule:
    """Parse one rule.

    Raises:
        ValueError: The text is not a rule; the message says why.
    """
    text = text.strip()
    if compared := _COMPARED.fullmatch(text):
        values = tuple(dict.fromkeys(part.strip() for part in compared["values"].split("|")))
        rule = LabelRule(compared["key"].strip(), Operator(compared["operator"]), values)
    elif text.startswith("!"):
        rule = LabelRule(text[1:].strip(), Operator.HAS_NOT)
    else:
        rule = LabelRule(text, Operator.HAS)
    _check(rule, text)
    return rule


def _check(rule: LabelRule, text: str) -> None:
    part = f"has the part {text[:80]!r}"
    if not LABEL_KEY.fullmatch(rule.key):
        raise ValueError(f"{part}, whose key is not letters, digits, '.', '_', '-' or one '/'")
    for value in rule.values:
        if not LABEL_VALUE.fullmatch(value):
            raise ValueError(f"{part}, whose value is not letters, digits or ._:/+@=-")
    compares_numbers = rule.operator in (Operator.AT_LEAST, Operator.AT_MOST)
    if compares_numbers and (len(rule.values) != 1 or _number(rule.values[0]) is None):
        raise ValueError(f"{part}, which compares with something that is not a number")


def label_is(key: str, *values: str) -> LabelRule:
    """Return the rule that a label has one of these values."""
    return LabelRule(key, Operator.IS, values)


def first_broken(rules: Iterable[LabelRule], labels: Mapping[str, str]) -> LabelRule | None:
    """Return the first rule that does not hold, or None if all do."""
    return next((rule for rule in rules if not rule.holds(labels)), None)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
