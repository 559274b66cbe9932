"""YAML as plain values that remember their lines, bounded in size whatever the text."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

KeyPath = tuple[str | int, ...]
"""Where a value stands: the keys and places in lists that lead to it."""

DEEPEST: Final = 20
"""How many mappings and lists may stand within each other; a routing file needs six."""

MOST_VALUES: Final = 50_000
"""How many values there may be once anchors are followed."""

MOST_TOLD: Final = 50
"""How many flaws one message tells."""

_SCALARS: Final = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_MERGE: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Flaw:
    """Something that is wrong with the file, or looks so.

    Attributes:
        line: Counted from 1; 0: the file as a whole.
        key: Such as `rules[2].policy`, counted from 0; empty: the file as a whole.
        text: What is wrong and what would be right.
    """

    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"line {self.line}" if self.line else "", self.key) if part)
        return f"{where}: {self.text}" if where else self.text


class RoutingFileError(Exception):
    """The file cannot be used; the message has a line for each flaw, up to `MOST_TOLD`."""

    def __init__(self, flaws: Iterable[Flaw], file: str = "") -> None:
        self.flaws = tuple(flaws)
        prefix = f"{file}: " if file else ""
        lines = [f"{prefix}{flaw}" for flaw in self.flaws[:MOST_TOLD]]
        if more := len(self.flaws) - len(lines):
            lines.append(f"{prefix}and {more} more")
        super().__init__("\n".join(lines))


@dataclass
class Document:
    """The content of a file.

    Attributes:
        value: Of mappings, lists, texts, numbers, truth values and None.
        flaws: What was found on the way; then `value` is not to be used.
    """

    value: Any = None
    flaws: list[Flaw] = field(default_factory=list)
    _lines: dict[KeyPath, int] = field(default_factory=dict)

    def flaw(self, path: KeyPath, text: str) -> Flaw:
        """A flaw of the value there, or of the nearest one around it."""
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        return Flaw(self._lines.get(known, 0), show(path), text)

    def note(self, path: KeyPath, node: yaml.Node) -> None:
        """Remembers the line of a value."""
        self._lines[path] = node.start_mark.line + 1

    def require_no_flaws(self) -> None:
        """Raises `RoutingFileError` if there are any."""
        if self.flaws:
            raise RoutingFileError(self.flaws)


def show(path: KeyPath) -> str:
    """The path as people write it: `rules[2].policy`."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return shown.removeprefix(".")


def read_yaml(text: str) -> Document:
    """Reads one YAML document.

    Raises:
        RoutingFileError: It is not YAML, a key is there twice, or it is too large to be meant.
    """
    try:
        root = _BoundedLoader(text).get_single_node()
    except yaml.YAMLError as error:
        raise RoutingFileError([_flaw_of(error)]) from error
    document = Document()
    if root is None:
        document.flaws.append(Flaw(0, "", "holds nothing; write 'rules: []' if there are to be no rules"))
    else:
        _Reader(document).read(root, (), 0)
    document.require_no_flaws()
    return document


class _BoundedLoader(yaml.SafeLoader):
    """Gives up on deep nesting before Python's own stack does."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            mark = parent.start_mark if parent else None
            raise yaml.MarkedYAMLError(problem=f"is nested deeper than {DEEPEST} levels", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Reader:
    """Turns nodes into values. Aliases are followed anew each time, hence the count."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def read(self, node: yaml.Node, path: KeyPath, depth: int) -> None:
        self._document.value = self._value(node, path, depth)

    def _value(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self._document.note(path, node)
        self._count += 1
        if self._count > MOST_VALUES or depth > DEEPEST:
            flaw = self._document.flaw(path, "anchors make this far larger than any routing file; use fewer")
            raise RoutingFileError([flaw])
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path, depth)
            case yaml.SequenceNode():
                return [self._value(item, (*path, place), depth + 1) for place, item in enumerate(node.value)]
            case _:
                return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in found:
                line = key_node.start_mark.line + 1
                self._document.flaws.append(Flaw(line, show((*path, key)), "is there twice; keep one"))
            found[key] = self._value(value_node, (*path, key), depth + 1)
            self._document.note((*path, key), key_node)
        return found

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        line = node.start_mark.line + 1
        if node.tag == _MERGE:
            text = "merge keys (<<) are not understood; write the keys out, or use an anchor for one value"
        elif not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            text = "has a key that is not text; put it in quotes"
        else:
            return str(node.value)
        self._document.flaws.append(Flaw(line, show(path), text))
        return None

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        written = str(node.value)[:60]
        if node.tag not in _SCALARS:
            text = f"{written!r} is neither text nor a number; put it in quotes"
        else:
            try:
                return self._scalars.construct_object(node)
            except (ValueError, LookupError):
                text = f"{written!r} is not what its tag says; put it in quotes"
        self._document.flaws.append(self._document.flaw(path, text))
        return None


def _flaw_of(error: yaml.YAMLError) -> Flaw:
    if isinstance(error, yaml.MarkedYAMLError):
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return Flaw(line, "", f"is not valid YAML: {what}")
    return Flaw(0, "", f"is not valid YAML: {' '.join(str(error).split())}")
