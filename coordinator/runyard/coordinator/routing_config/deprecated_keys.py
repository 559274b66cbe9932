"""Keys of routing files under their names of Runyard 0.1: still read, each with a warning."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from runyard.common.service.yaml_document import KeyPath, YamlDocument, YamlProblem

MAX_LINES: Final = 5
"""Further lines that one warning lists."""

_EACH: Final = "*"
"""In a path: every key of a mapping, or every item of a list."""


@dataclass(frozen=True)
class DeprecatedKey:
    """The former name of a key.

    Attributes:
        parent: Path of the mappings that hold it; `*` matches every key and every item.
    """

    parent: tuple[str, ...]
    old: str
    new: str


DEPRECATED_KEYS: Final = (
    DeprecatedKey((), "no_rule", "on_no_matching_rule"),
    DeprecatedKey((), "no_node", "on_no_eligible_node"),
    DeprecatedKey((), "most_places", "max_placement_attempts"),
    DeprecatedKey(("rules", _EACH), "policy", "cluster_order"),
    DeprecatedKey(("quotas", _EACH), "least", "guaranteed"),
    DeprecatedKey(("quotas", _EACH), "most", "limit"),
)


def rename_deprecated_keys(document: YamlDocument) -> list[YamlProblem]:
    """Give deprecated keys of a document their present names.

    Where a mapping has a key under both names, that is added to the problems of the document.

    Returns:
        One warning for each deprecated key that the document uses, at its first line.
    """
    return [warning for key in DEPRECATED_KEYS if (warning := _rename(document, key))]


def _rename(document: YamlDocument, key: DeprecatedKey) -> YamlProblem | None:
    used: list[YamlProblem] = []
    for parent, mapping in _mappings(document.value, key.parent, ()):
        if key.old not in mapping:
            continue
        old_path, new_path = (*parent, key.old), (*parent, key.new)
        if key.new in mapping:
            message = (
                f"is the old name of {key.new}, which is on line {document.line_of(new_path)}; "
                f"keep {key.new} alone"
            )
            document.problems.append(document.problem_at(old_path, message))
            continue
        used.append(document.problem_at(old_path, f"is deprecated; rename it to {key.new}"))
        document.rename_key(parent, key.old, key.new)
    return _warning(used)


def _warning(used: list[YamlProblem]) -> YamlProblem | None:
    if not used:
        return None
    first, *others = used
    lines = sorted({other.line for other in others})
    more = ", ..." if len(lines) > MAX_LINES else ""
    also = f" (also on line {', '.join(map(str, lines[:MAX_LINES]))}{more})" if lines else ""
    return YamlProblem(first.line, first.key, first.message + also)


def _mappings(
    value: Any, pattern: tuple[str, ...], path: KeyPath
) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield the mappings that the pattern matches, with their paths."""
    if not pattern:
        if isinstance(value, dict):
            yield path, value
        return
    first, *rest = pattern
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = [(key, each) for key, each in value.items() if first in (_EACH, key)]
    elif isinstance(value, list) and first == _EACH:
        inner = list(enumerate(value))
    for key, each in inner:
        yield from _mappings(each, tuple(rest), (*path, key))
