"""Messages that no honest peer would send, made from the descriptors of the protocol.

Every field may hold what is usual, what is unusual, or nonsense. About one value in eight is not usual: were it
more, hardly a message would get past the first check.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

RUN_IDS: Final = [f"00000000-0000-4000-8000-{number:012}" for number in range(6)]

USUAL_TEXT: Final[Mapping[str, list[str]]] = {
    "run_id": RUN_IDS,
    "run_ids": RUN_IDS,
    "node_id": ["node-a", "node-b", "node-c"],
    "node": ["", "", "node-a", "node-b"],
    "cluster": ["default", "default", "gpu"],
    "installation_id": ["installation-1", "installation-1", "installation-2"],
    "instance_id": ["instance-1"],
    "boot_id": ["boot-1", "boot-2"],
    "deployment": ["shop"],
    "job": ["orders"],
    "location": ["shop.py"],
    "worker_args": ["{}"],
    "driver": ["", "process", "docker"],
    "drivers": ["process"],
    "labels": ["zone=a", "gpu", "!spot", "cores>=16", "zone!=a|b"],
    "label": ["zone=a", "gpu", "!spot"],
    "taints": ["gpu", "team=x"],
    "tolerations": ["gpu", "team=x"],
    "isolation": ["", "require", "prefer", "none"],
    "job_snapshot_id": ["", "", "snapshot-1", "snapshot-2"],
    "transfer_id": ["transfer-1"],
    "container_context_json": ["", '{"runyard": {"cpu": 2, "labels": {"zone": ["a", "b"]}}}'],
    "execution_config_json": ["", '{"config": {"multiprocess": {"max_concurrent": 4}}}'],
    "page_token": ["", "", "1700000000.5/" + RUN_IDS[0]],
    "executable": [""],
    "working_directory": [""],
}
"""By name of the field, what an honest peer might say there."""

USUAL_ENTRIES: Final[Mapping[str, dict[str, list[Any]]]] = {
    "tags": {
        "dagster/priority": ["3", "-1", "9" * 5_000, "a"],
        "runyard/config": ['{"cpu": 2, "prefer": {"zone=a": 5}}', "{", "[" * 900 + "]" * 900],
        "runyard/memory": ["16Gi", "1e99", "-1"],
        "runyard/cpu": ["500m", "nan"],
        "runyard/labels": ["zone=a|b,!spot", "zone=a,!zone", "a" + " " * 2_000 + "b"],
        "runyard/tolerations": ["*"],
        "runyard/grace": ["90s", "1" + "0" * 400],
        "runyard/on_disconnect": ["stop_after=5m", "keep", "stop_after=-1"],
        "runyard/nonsense": ["1"],
    },
    "resources": {"cpu": [0, 1000, 1 << 50], "memory": [0, 1 << 30], "slots": [1, 8], "gpu": [2], "x": [5]},
    "reserved": {"cpu": [500], "memory": [1 << 20]},
    "largest_run": {"cpu": [500], "memory": [1 << 20]},
    "labels": {"zone": ["a", "b"], "cores": ["32", "nan"], "vendor/gpu": ["h100"]},
    "environment": {"TOKEN": ["canary"], "PATH": ["/usr/bin"], "A=B": ["x"], "N": ["\0"]},
}
"""The same for maps: keys, each with values."""

USUAL_NUMBERS: Final[Mapping[str, list[int]]] = {
    "protocol_min": [1],
    "protocol_max": [1],
    "attempt": [0, 0, 1, 1, 2],
    "resume_number": [0, 0, 1],
    "page_size": [0, 0, 10],
    "kind": [1],
    "phase": [3, 4, 5, 6],
    "sequence": [1, 2],
    "after_heartbeat": [0],
}

_DEEP_JSON: Final = [
    '{"runyard": {"labels": ' + "[" * depth + "]" * depth + "}}" for depth in (50, 900, 960, 985)
]

STRANGE_TEXT: Final = [
    "",
    "\0",
    "../../../../etc/passwd",
    "-" * 200,
    "a" * 100_000,
    "a" + " " * 3_000 + "b",
    "1" * 5_000,
    "[" * 50_000,
    "\N{COLLISION SYMBOL}" * 1_000,
    "\u202e\r\n\x1b[31m%s%n",
    "nan",
    "1e999",
    "null",
    "unix:/tmp/x",
    *_DEEP_JSON,
]

STRANGE_SECONDS: Final = [-1, 10**6, 315_576_000_000, 9_223_372_036, (1 << 63) - 1, -(1 << 63)]
STRANGE_NANOS: Final = [-1, 999_999_999, (1 << 31) - 1, -(1 << 31)]

_RANGES: Final = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_SINT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.TYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
}

SHOWN: Final = 300
"""Characters of a message that are shown when it has found something."""

Draw = Callable[[st.SearchStrategy[Any]], Any]


class Wire:
    """A message on its way, shown as what its reader will see.

    Args:
        data: What is sent.
        kind: What its reader takes it for.
    """

    def __init__(self, data: bytes, kind: Descriptor) -> None:
        self.data = data
        self._kind = kind

    @property
    def read(self) -> Message | None:
        """The message; None if it is none."""
        try:
            return GetMessageClass(self._kind).FromString(self.data)
        except DecodeError:
            return None

    def __repr__(self) -> str:
        message = self.read
        text = f"no message: {self.data[:60]!r}" if message is None else str(message).replace("\n", " ")
        return f"<{self._kind.name} of {len(self.data)} bytes: {text[:SHOWN]}>"


one_in_eight: Final = st.integers(0, 7).map(lambda drawn: drawn == 7)


@st.composite
def messages(draw: Draw, descriptor: Descriptor) -> Message:
    """Any message of that kind."""
    message = GetMessageClass(descriptor)()
    match descriptor.full_name:
        case "google.protobuf.Duration" | "google.protobuf.Timestamp":
            _fill_time(draw, message)
        case "runyard.v1.Snapshot":
            _fill_snapshot(draw, message)
        case _:
            for field in _chosen(draw, descriptor):
                _fill(draw, message, field)
    return message


@st.composite
def wire(draw: Draw, descriptor: Descriptor) -> Wire:
    """Any message of that kind as bytes, of which some are none: cut off, merged, or with unknown fields."""
    data: bytes = draw(messages(descriptor)).SerializePartialToString()
    return Wire(_damaged(draw, descriptor, data) if draw(one_in_eight) else data, descriptor)


def _damaged(draw: Draw, descriptor: Descriptor, data: bytes) -> bytes:
    match draw(st.sampled_from(["merged", "unknown", "nested", "cut", "changed", "noise"])):
        case "merged":  # a second member of a oneof, and fields that came already
            other: bytes = draw(messages(descriptor)).SerializePartialToString()
            return data + other
        case "unknown":
            return data + b"\xaa\xfa\x07\x80\x08" + b"x" * 1024
        case "nested":  # groups in groups: deeper than 100 no reader follows
            depth = draw(st.sampled_from([50, 90, 1_000, 100_000]))
            return data + b"\x0b" * depth + b"\x0c" * depth
        case "cut":
            return data[: draw(st.integers(0, len(data)))]
        case "changed":
            at = draw(st.integers(0, max(0, len(data) - 1)))
            return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
        case _:
            return bytes(draw(st.binary(max_size=200)))


def _chosen(draw: Draw, descriptor: Descriptor) -> list[FieldDescriptor]:
    """Most fields, but of a oneof only one."""
    chosen = [field for field in descriptor.fields if not _is_choice(field) and not draw(one_in_eight)]
    for choice in descriptor.oneofs:
        members = [field for field in choice.fields if _is_choice(field)]
        if members and not draw(one_in_eight):
            chosen.append(draw(st.sampled_from(members)))
    return chosen


def _is_choice(field: FieldDescriptor) -> bool:
    """Whether it excludes other fields; `optional` makes a oneof of a single field."""
    return field.containing_oneof is not None and len(field.containing_oneof.fields) > 1


def _fill(draw: Draw, message: Message, field: FieldDescriptor) -> None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entries = getattr(message, field.name)
        for key, value in draw(_entries(field)):
            entries[key] = value
    elif field.is_repeated:
        values = getattr(message, field.name)
        for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
            values.append(draw(messages(kind) if kind else _values(field)))
    elif kind is not None:
        getattr(message, field.name).CopyFrom(draw(messages(kind)))
    else:
        setattr(message, field.name, draw(_values(field)))


def _entries(field: FieldDescriptor) -> st.SearchStrategy[list[tuple[str, Any]]]:
    value = field.message_type.fields_by_name["value"]
    usual = [(key, each) for key, known in USUAL_ENTRIES.get(field.name, {}).items() for each in known]
    usual = [(key, each) for key, each in usual if isinstance(each, str) == (value.type == value.TYPE_STRING)]
    strange = st.tuples(st.sampled_from(STRANGE_TEXT) | st.text(max_size=20), _values(value))
    entry = st.sampled_from(usual) if usual else strange
    return st.lists(_mostly(entry, strange), max_size=3)


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            usual = st.sampled_from(USUAL_TEXT.get(field.name, ["a", "orders"]))
            return _mostly(usual, st.sampled_from(STRANGE_TEXT) | st.text(max_size=40))
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=100) | st.just(b"\0" * 70_000)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return _mostly(st.sampled_from([0.0, 0.5, 1.0]), st.floats())
        case _:
            return _numbers(field)


def _numbers(field: FieldDescriptor) -> st.SearchStrategy[int]:
    least, most = _RANGES[field.type]
    known = [value.number for value in field.enum_type.values] if field.enum_type else [0, 1, 2, 1000]
    usual = st.sampled_from(USUAL_NUMBERS.get(field.name, known))
    return _mostly(usual, st.sampled_from([least, most, most - 1, most // 2]) | st.integers(least, most))


def _mostly(usual: st.SearchStrategy[Any], strange: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return one_in_eight.flatmap(lambda is_strange: strange if is_strange else usual)


def _fill_time(draw: Draw, message: Any) -> None:
    message.seconds = draw(_mostly(st.sampled_from([0, 1, 10, 600]), st.sampled_from(STRANGE_SECONDS)))
    message.nanos = draw(_mostly(st.just(0), st.sampled_from(STRANGE_NANOS)))


def _fill_snapshot(draw: Draw, message: Any) -> None:
    plain = draw(
        st.sampled_from(
            [
                b"{}",
                b'"runyard/"',
                b'{"runyard/": ' + b"[" * 100_000,
                json.dumps({"solid_definitions_snapshot": {"solid_def_snaps": ["runyard/"]}}).encode(),
                b" " * 20_000_000 + b'"runyard/',
            ]
        )
    )
    message.data = draw(_mostly(st.just(zlib.compress(plain)), st.binary(max_size=50)))
    message.sha256 = draw(_mostly(st.just(sha256(plain).hexdigest()), st.text(max_size=10)))
