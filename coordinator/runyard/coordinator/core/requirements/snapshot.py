"""Parser of job snapshots: ops with their tags, their dependencies, and the concurrency of steps.

The names are those under which Dagster 1.9 to 1.13 store a snapshot, `dagster/_core/snap`.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runyard.coordinator.core.requirements.json_pieces import EACH, pieces
from runyard.coordinator.core.requirements.tags import PREFIX

MOST_OPS: Final = 200_000
"""A snapshot with more leaf ops is refused: nested graphs multiply."""

_DEEPEST: Final = 64


class Steps(enum.Enum):
    """Concurrency of steps under the job's executor."""

    ONE_BY_ONE = "one by one"
    SIDE_BY_SIDE = "side by side"
    RUN_CONFIG = "as the run config says"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Tagged:
    """Tags of an op or a graph, and its name: `op outer.train`, `graph outer`."""

    where: str
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Op:
    """One use of an op.

    Attributes:
        handle: Path of the op: `outer.mid.inner.train`.
        levels: Runyard's tags that apply to it, from the outermost graph to the use of the op.
        upstream: Handles of the ops that its inputs come from.
        mapped: True if it runs once for every item of a dynamic output.
    """

    handle: str
    levels: tuple[Tagged, ...] = ()
    upstream: tuple[str, ...] = ()
    mapped: bool = False


@dataclass(frozen=True)
class JobShape:
    """Outline of a job.

    Attributes:
        execution_default: Default of the `execution` part of the run config, as JSON, or empty.
    """

    ops: tuple[Op, ...] = ()
    steps: Steps = Steps.UNKNOWN
    execution_default: str = ""


def job_shape(text: str) -> JobShape:
    """Parse a job snapshot.

    Args:
        text: As Dagster serializes it.

    Raises:
        ValueError: The text is not a job snapshot of a supported version of Dagster.
    """
    try:
        parts = _read(text)
        steps, execution_default = _executor(parts)
        return JobShape(tuple(_flattened(parts)), steps, execution_default)
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"is not a job snapshot of Dagster 1.9 to 1.13 ({error!r})") from error


# Parsing

_OPS: Final = ("solid_definitions_snapshot", "solid_def_snaps", EACH)
_GRAPHS: Final = ("solid_definitions_snapshot", "composite_solid_def_snaps", EACH)
_NODES: Final = ("dep_structure_snapshot", "solid_invocation_snaps", EACH)
_MODES: Final = ("mode_def_snaps", EACH)
_CONFIG_TYPES: Final = ("config_schema_snapshot", "all_config_snaps_by_key", EACH)

_End = tuple[str, str]
"""A node, and one of its inputs or outputs."""

_OwnTags = tuple[tuple[str, str], ...]

_ConfigType = tuple[str, Mapping[str, tuple[str, str]]]
"""Kind of the type, and by field the key of the field's type and its default as JSON."""


@dataclass(frozen=True)
class _Node:
    name: str
    definition: str
    tags: _OwnTags
    mapped: bool
    inputs: Mapping[str, tuple[_End, ...]]


@dataclass(frozen=True)
class _Graph:
    tags: _OwnTags
    nodes: tuple[_Node, ...]
    inputs: Sequence[tuple[str, _End]]
    outputs: Mapping[str, _End]


@dataclass
class _Parts:
    """The relevant parts of a snapshot; the rest may be a hundred times as large."""

    op_tags: dict[str, _OwnTags] = field(default_factory=dict)
    graphs: dict[str, _Graph] = field(default_factory=dict)
    nodes: list[_Node] = field(default_factory=list)
    config_types: dict[str, _ConfigType] = field(default_factory=dict)
    root_config: str = ""


def _read(text: str) -> _Parts:
    parts = _Parts()
    for path, found in pieces(text, (_OPS, _GRAPHS, _NODES, _MODES, _CONFIG_TYPES)):
        if path == _OPS:
            parts.op_tags[found["name"]] = _own(found)
        elif path == _GRAPHS:
            parts.graphs[found["name"]] = _graph(found)
        elif path == _NODES:
            parts.nodes.append(_node(found))
        elif path == _CONFIG_TYPES:
            fields = {
                each["name"]: (each["type_key"], each["default_value_as_json_str"] or "")
                for each in found["fields"] or ()
            }
            parts.config_types[found["key"]] = (found["kind"]["__enum__"], fields)
        elif not parts.root_config:
            parts.root_config = found["root_config_key"] or ""
    return parts


def _own(snap: Mapping[str, Any]) -> _OwnTags:
    tags = snap.get("tags") or {}
    return tuple((name, text) for name, text in tags.items() if name.startswith(PREFIX))


def _node(snap: Mapping[str, Any]) -> _Node:
    return _Node(
        name=snap["solid_name"],
        definition=snap["solid_def_name"],
        tags=_own(snap),
        mapped=bool(snap.get("is_dynamic_mapped")),
        inputs={
            each["input_name"]: tuple(
                (source["solid_name"], source["output_name"]) for source in each["upstream_output_snaps"]
            )
            for each in snap["input_dep_snaps"]
        },
    )


def _graph(snap: Mapping[str, Any]) -> _Graph:
    return _Graph(
        tags=_own(snap),
        nodes=tuple(map(_node, snap["dep_structure_snapshot"]["solid_invocation_snaps"])),
        inputs=[
            (each["external_input_name"], (each["mapped_solid_name"], each["mapped_input_name"]))
            for each in snap["input_mapping_snaps"]
        ],
        outputs={
            each["external_output_name"]: (each["mapped_solid_name"], each["mapped_output_name"])
            for each in snap["output_mapping_snaps"]
        },
    )


# Flattening of nested graphs


@dataclass(frozen=True)
class _Inside:
    """The graph that is being flattened, and its inputs.

    Attributes:
        path: Handle of the graph with a dot; empty for the job itself.
        feeds: By node and input, the handles of the ops outside that feed it.
    """

    path: str
    nodes: Sequence[_Node]
    levels: tuple[Tagged, ...]
    mapped: bool
    feeds: Mapping[_End, tuple[str, ...]]


def _flattened(parts: _Parts) -> Iterator[Op]:
    for number, op in enumerate(_flatten(parts, _Inside("", parts.nodes, (), False, {}), 0)):
        if number >= MOST_OPS:
            raise ValueError(f"has more than {MOST_OPS} ops")
        yield op


def _flatten(parts: _Parts, inside: _Inside, depth: int) -> Iterator[Op]:
    if depth > _DEEPEST:
        raise ValueError(f"nests graphs deeper than {_DEEPEST}")
    definitions = {node.name: node.definition for node in inside.nodes}
    for node in inside.nodes:
        handle = f"{inside.path}{node.name}"
        mapped = inside.mapped or node.mapped
        feeds = {name: _feeding(parts, inside, definitions, node, name) for name in node.inputs}
        graph = parts.graphs.get(node.definition)
        if graph is None:
            levels = _levels(inside, f"op {handle}", parts.op_tags[node.definition], node.tags)
            upstream = tuple(dict.fromkeys(source for sources in feeds.values() for source in sources))
            yield Op(handle, levels, upstream, mapped)
            continue
        levels = _levels(inside, f"graph {handle}", graph.tags, node.tags)
        inner: dict[_End, tuple[str, ...]] = {}
        for outer_input, end in graph.inputs:
            inner[end] = (*inner.get(end, ()), *feeds.get(outer_input, ()))
        yield from _flatten(parts, _Inside(f"{handle}.", graph.nodes, levels, mapped, inner), depth + 1)


def _feeding(
    parts: _Parts, inside: _Inside, definitions: Mapping[str, str], node: _Node, name: str
) -> tuple[str, ...]:
    """Return the ops that feed the input of that name."""
    siblings = (
        _producer(parts, inside.path, definitions[source], source, output)
        for source, output in node.inputs[name]
    )
    return (*siblings, *inside.feeds.get((node.name, name), ()))


def _producer(parts: _Parts, path: str, definition: str, node: str, output: str) -> str:
    """Return the handle of the op that produces a node's output."""
    handle = f"{path}{node}"
    while (graph := parts.graphs.get(definition)) is not None:
        node, output = graph.outputs[output]
        definition = next(each.definition for each in graph.nodes if each.name == node)
        handle = f"{handle}.{node}"
    return handle


def _levels(inside: _Inside, where: str, *tags: _OwnTags) -> tuple[Tagged, ...]:
    return (*inside.levels, *(Tagged(where, own) for own in dict.fromkeys(tags) if own))


# Executor


_NO_TYPE: Final[_ConfigType] = ("", {})


def _executor(parts: _Parts) -> tuple[Steps, str]:
    """Return the concurrency of steps, as far as the run config's schema shows it, and the default config."""
    _, root = parts.config_types.get(parts.root_config, _NO_TYPE)
    execution_key, execution_default = root.get("execution", ("", ""))
    _, execution = parts.config_types.get(execution_key, _NO_TYPE)
    config_key, _ = execution.get("config", ("", ""))
    kind, fields = parts.config_types.get(config_key, _NO_TYPE)
    match kind.rpartition(".")[2]:
        case "SELECTOR" if {"in_process", "multiprocess"} <= fields.keys():
            return Steps.RUN_CONFIG, execution_default
        case "STRICT_SHAPE" | "PERMISSIVE_SHAPE":
            steps = Steps.SIDE_BY_SIDE if "max_concurrent" in fields else Steps.ONE_BY_ONE
            return steps, execution_default
        case _:  # `Any`: an executor that was configured in code
            return Steps.UNKNOWN, execution_default
