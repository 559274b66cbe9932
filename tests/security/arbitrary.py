"""Messages that no honest peer would send, made from the descriptors of the protocol.

Every field may hold what is usual, or nonsense. Most values are usual: else hardly a message would get past
the first check.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from runyard.client.requests import snapshot_messages

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
    "token": ["ryj1.0123456789ab." + "A" * 43],
    "csr_pem": ["-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"],
    "serial": ["1f", "ffffffffffffffffffffffffffffffffffffffff"],
    "token_id": ["0123456789ab"],
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


@st.composite
def messages(draw: Draw, descriptor: Descriptor) -> Message:
    """Any message of that kind."""
    return _Author(draw).message(descriptor)


@st.composite
def wire(draw: Draw, descriptor: Descriptor) -> Wire:
    """Any message of that kind as bytes, of which some are none: cut off, merged, or with unknown fields."""
    author = _Author(draw)
    data = author.message(descriptor).SerializePartialToString()
    if draw(_RATHER_NOT):
        data = _damaged(draw, data, lambda: author.message(descriptor).SerializePartialToString())
    return Wire(data, descriptor)


@st.composite
def sent_snapshots(draw: Draw) -> list[Wire]:
    """A job snapshot as clients send it, whole or nearly so."""
    name = draw(st.sampled_from([name for name in USUAL_TEXT["job_snapshot_id"] if name]))
    sent = list(snapshot_messages(name, draw(_SNAPSHOTS)))
    if draw(_RATHER_NOT):
        sent.insert(draw(st.integers(0, len(sent))), sent.pop(draw(st.integers(0, len(sent) - 1))))
    return [Wire(message.SerializeToString(), message.DESCRIPTOR) for message in sent]


def _damaged(draw: Draw, data: bytes, another: Callable[[], bytes]) -> bytes:
    match draw(_DAMAGE):
        case "merged":  # a second member of a oneof, and fields that came already
            return data + another()
        case "unknown":
            return data + b"\xaa\xfa\x07\x80\x08" + b"x" * 1024
        case "nested":  # groups in groups: deeper than 100 no reader follows
            depth: int = draw(st.sampled_from([50, 90, 1_000, 100_000]))
            return data + b"\x0b" * depth + b"\x0c" * depth
        case "cut":
            return data[: draw(st.integers(0, len(data)))]
        case "changed":
            at = draw(st.integers(0, max(0, len(data) - 1)))
            return bytes(data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :])
        case _:
            return bytes(draw(st.binary(max_size=200)))


_DAMAGE: Final = st.sampled_from(["merged", "unknown", "nested", "cut", "changed", "noise"])
_RATHER_NOT: Final = st.sampled_from([False] * 7 + [True])
_HOW_STRANGE: Final = st.sampled_from([0, 0, 1, 4])
_OF_THIRTY: Final = st.integers(1, 30)
_HOW_MANY: Final = st.sampled_from([0, 1, 1, 2, 3])
_TEXT: Final = st.sampled_from(STRANGE_TEXT) | st.text(max_size=40)
_SNAPSHOTS: Final = st.sampled_from(
    [
        b"{}",
        b'"runyard/"',
        b'{"runyard/": ' + b"[" * 100_000,
        json.dumps({"solid_definitions_snapshot": {"solid_def_snaps": ["runyard/"]}}).encode(),
        b" " * 20_000_000 + b'"runyard/',
    ]
)


class _Author:
    """Writes one message. How much in it is strange is drawn once, for only ordinary ones get far."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._strangeness = draw(_HOW_STRANGE)

    def message(self, descriptor: Descriptor) -> Message:
        message = GetMessageClass(descriptor)()
        match descriptor.full_name:
            case "google.protobuf.Duration" | "google.protobuf.Timestamp":
                self._fill_time(message)
            case _:
                for field in self._chosen(descriptor):
                    self._fill(message, field)
        return message

    @property
    def _is_strange(self) -> bool:
        return bool(self._strangeness) and self._draw(_OF_THIRTY) <= self._strangeness

    def _pick(self, values: Sequence[Any]) -> Any:
        return values[0] if len(values) == 1 else self._draw(st.sampled_from(values))

    def _chosen(self, descriptor: Descriptor) -> list[FieldDescriptor]:
        """Most fields, but of a oneof only one."""
        chosen = [field for field in descriptor.fields if not _is_choice(field) and not self._is_strange]
        for choice in descriptor.oneofs:
            members = [field for field in choice.fields if _is_choice(field)]
            if members and not self._is_strange:
                chosen.append(self._pick(members))
        return chosen

    def _fill(self, message: Message, field: FieldDescriptor) -> None:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            entries = getattr(message, field.name)
            for _ in range(self._draw(_HOW_MANY)):
                self._add_entry(entries, field)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(self._draw(_HOW_MANY)):
                values.append(self.message(kind) if kind else self._value(field))
        elif kind is not None:
            getattr(message, field.name).CopyFrom(self.message(kind))
        else:
            setattr(message, field.name, self._value(field))

    def _add_entry(self, entries: Any, field: FieldDescriptor) -> None:
        assert field.message_type is not None
        value = field.message_type.fields_by_name["value"]
        usual = USUAL_ENTRIES.get(field.name, {})
        fitting = [
            (key, each)
            for key, known in usual.items()
            for each in known
            if isinstance(each, str) == (value.type == value.TYPE_STRING)
        ]
        if value.message_type is not None:
            entries[self._draw(_TEXT)].CopyFrom(self.message(value.message_type))
        elif fitting and not self._is_strange:
            key, entry = self._pick(fitting)
            entries[key] = entry
        else:
            entries[self._draw(_TEXT)] = self._value(value)

    def _value(self, field: FieldDescriptor) -> Any:
        strange = self._is_strange
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                return self._draw(_TEXT) if strange else self._pick(USUAL_TEXT.get(field.name, ["orders"]))
            case FieldDescriptor.TYPE_BYTES:
                return b"\0" * 70_000 if strange else self._draw(st.binary(max_size=100))
            case FieldDescriptor.TYPE_BOOL:
                return self._pick([False, True])
            case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
                return self._draw(st.floats()) if strange else 0.5
            case _:
                return self._number(field, strange)

    def _number(self, field: FieldDescriptor, strange: bool) -> int:
        least, most = _RANGES[field.type]
        if strange:
            edges = st.sampled_from([least, most, most - 1, most // 2])
            return int(self._draw(edges | st.integers(least, most)))
        known = [value.number for value in field.enum_type.values] if field.enum_type else [0, 1, 2, 1000]
        return int(self._pick(USUAL_NUMBERS.get(field.name, known)))

    def _fill_time(self, message: Any) -> None:
        message.seconds = self._pick(STRANGE_SECONDS if self._is_strange else [0, 1, 10, 600])
        message.nanos = self._pick(STRANGE_NANOS if self._is_strange else [0])


def _is_choice(field: FieldDescriptor) -> bool:
    """Whether it excludes other fields; `optional` makes a oneof of a single field."""
    return field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
