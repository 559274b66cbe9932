"""YAML as plain values that remember their lines, within bounds whatever the file holds.

Errors name the line and the key. Duplicate keys are errors, and so are keys that are not text, merge keys
(`<<`) and values other than text, numbers, truth values and null.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

KeyPath = tuple[str | int, ...]
"""Keys and list indexes that lead from the top of a document to a value."""

MAX_REPORTED: Final = 50
"""Problems that one error message lists; the rest are counted."""

_SCALARS: Final = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_MERGE: Final = "tag:yaml.org,2002:merge"
_LONGEST_QUOTE: Final = 60


@dataclass(frozen=True)
class YamlLimits:
    """Bounds on a document.

    Attributes:
        size: Bytes of the file.
        depth: Nested mappings and lists.
        values: Values, where each use of an alias counts again.
        size_remedy: Advice to the owner of a file that is too large.
    """

    size: int = 256 * 1024
    depth: int = 20
    values: int = 50_000
    size_remedy: str = "make it shorter"


DEFAULT_LIMITS: Final = YamlLimits()


@dataclass(frozen=True)
class YamlProblem:
    """An error or a warning about one place in a file.

    Attributes:
        line: Counted from 1; 0 for the whole file.
        key: For example `rules[2].name`, counted from 0; empty for the whole file.
        message: The problem and its remedy.
    """

    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"line {self.line}" if self.line else "", self.key) if part)
        return f"{where}: {self.message}" if where else self.message


class InvalidYamlFile(Exception):
    """The file cannot be used. The message has one line for each problem, up to `MAX_REPORTED`."""

    def __init__(self, problems: Iterable[YamlProblem], file: str = "") -> None:
        self.problems = tuple(problems)
        prefix = f"{file}: " if file else ""
        lines = [f"{prefix}{problem}" for problem in self.problems[:MAX_REPORTED]]
        if more := len(self.problems) - len(lines):
            lines.append(f"{prefix}and {more} more")
        super().__init__("\n".join(lines))


@dataclass
class YamlDocument:
    """Content of a YAML file.

    Attributes:
        value: Mappings, lists, texts, numbers, truth values and None.
        problems: Errors found so far. A caller may add its own with `problem_at`, and then must call
            `require_no_problems` before it uses `value`.
    """

    value: Any = None
    problems: list[YamlProblem] = field(default_factory=list)
    _lines: dict[KeyPath, int] = field(default_factory=dict)
    _written: dict[KeyPath, KeyPath] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True if the file holds nothing but white space and comments."""
        return not self._lines

    def line_of(self, path: KeyPath) -> int:
        """Return the line of a value, or of the nearest value around it; 0 if there is none."""
        path = self._as_written(path)
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)

    def problem_at(self, path: KeyPath, message: str) -> YamlProblem:
        """Return a problem with the value at that path."""
        return YamlProblem(self.line_of(path), show_path(self._as_written(path)), message)

    def rename_key(self, parent: KeyPath, old: str, new: str) -> None:
        """Move a value to another key of the same mapping; problems still show the key in the file.

        Raises:
            KeyError: There is no such key.
        """
        mapping = self.value
        for part in parent:
            mapping = mapping[part]
        mapping[new] = mapping.pop(old)
        self._written[(*parent, new)] = (*parent, old)

    def set_line(self, path: KeyPath, line: int) -> None:
        """Set the line of a value."""
        self._lines[path] = line

    def require_no_problems(self) -> None:
        """Raise `InvalidYamlFile` if there are problems."""
        if self.problems:
            raise InvalidYamlFile(self.problems)

    def _as_written(self, path: KeyPath) -> KeyPath:
        for end in range(1, len(path) + 1):
            if written := self._written.get(path[:end]):
                return (*written, *path[end:])
        return path


def show_path(path: KeyPath) -> str:
    """Return the path in the notation of error messages: `rules[2].name`."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return shown.removeprefix(".")


def read_yaml_file(
    file: Path, limits: YamlLimits = DEFAULT_LIMITS, *, quote_values: bool = False
) -> YamlDocument:
    """Read a file with one YAML document. Blocks.

    Args:
        file: Its path.
        limits: Bounds on the document; a larger file is not read to its end.
        quote_values: Let messages quote values; only for files without secrets.

    Raises:
        InvalidYamlFile: The file cannot be read, is not YAML, holds a key twice, or exceeds a limit.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(limits.size + 1)
    except OSError as error:
        message = f"cannot be read ({error.strerror}); check the path"
        raise InvalidYamlFile([YamlProblem(0, "", message)], str(file)) from error
    try:
        return read_yaml(data, limits, quote_values=quote_values)
    except InvalidYamlFile as error:
        raise InvalidYamlFile(error.problems, str(file)) from error


def read_yaml(
    data: bytes, limits: YamlLimits = DEFAULT_LIMITS, *, quote_values: bool = False
) -> YamlDocument:
    """Read one YAML document in UTF-8, with or without a byte order mark.

    Args:
        data: The document.
        limits: Bounds on it.
        quote_values: Let messages quote values; only for files without secrets.

    Raises:
        InvalidYamlFile: It is not YAML, holds a key twice, or exceeds a limit.
    """
    if len(data) > limits.size:
        raise InvalidYamlFile(
            [YamlProblem(0, "", f"has more than {limits.size} bytes; {limits.size_remedy}")]
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidYamlFile([YamlProblem(line, "", "is not UTF-8; save it as that")]) from error
    try:
        root = _BoundedLoader(text, limits.depth).get_single_node()
    except yaml.YAMLError as error:
        raise InvalidYamlFile([_syntax_problem(error)]) from error
    document = YamlDocument()
    if root is not None:
        _Reader(document, limits, quote_values).read(root)
    document.require_no_problems()
    return document


class _BoundedLoader(yaml.SafeLoader):
    """A loader that refuses deep nesting before it exhausts Python's own stack."""

    def __init__(self, text: str, max_depth: int) -> None:
        super().__init__(text)
        self._max_depth = max_depth
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > self._max_depth:
            mark = parent.start_mark if parent else None
            problem = f"is nested deeper than {self._max_depth} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Reader:
    """Turns nodes into values. Each use of an alias is read again, hence the count."""

    def __init__(self, document: YamlDocument, limits: YamlLimits, quote_values: bool) -> None:
        self._document = document
        self._limits = limits
        self._quote_values = quote_values
        self._count = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def read(self, node: yaml.Node) -> None:
        self._document.value = self._value(node, (), 0)

    def _value(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self._document.set_line(path, _line(node))
        self._count += 1
        if self._count > self._limits.values or depth > self._limits.depth:
            message = f"aliases make more than {self._limits.values} values of this; use fewer"
            raise InvalidYamlFile([self._document.problem_at(path, message)])
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
                first = self._document.line_of((*path, key))
                message = f"is on line {first} already; keep one of them"
                self._document.problems.append(YamlProblem(_line(key_node), show_path((*path, key)), message))
            found[key] = self._value(value_node, (*path, key), depth + 1)
            self._document.set_line((*path, key), _line(key_node))
        return found

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if node.tag == _MERGE:
            message = "merge keys (<<) are not supported; write the keys out, or use an anchor for one value"
        elif not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            message = "has a key that is not text; put it in quotes"
        else:
            return str(node.value)
        self._document.problems.append(YamlProblem(_line(node), show_path(path), message))
        return None

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        written = repr(str(node.value)[:_LONGEST_QUOTE]) if self._quote_values else "the value"
        if node.tag not in _SCALARS:
            message = f"{written} is neither text nor a number; put it in quotes"
        else:
            try:
                return self._scalars.construct_object(node)
            except (ValueError, LookupError):
                message = f"{written} is not what its tag says; put it in quotes"
        self._document.problems.append(self._document.problem_at(path, message))
        return None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_problem(error: yaml.YAMLError) -> YamlProblem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return YamlProblem(mark.line + 1 if mark else 0, "", f"is not valid YAML: {said}")
    return YamlProblem(0, "", f"is not valid YAML: {' '.join(str(error).split())}")
