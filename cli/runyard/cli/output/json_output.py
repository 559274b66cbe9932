"""Messages as JSON that scripts may rely on.

Every field of a message is there under its name in the .proto file. Enum values are their lower-case words
(`running`), numbers are numbers, times are RFC 3339, what is not set is null.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

_WIDE_INTEGERS = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}


def to_json(messages: Message | Iterable[Message]) -> str:
    """One message as an object, several as an array."""
    if isinstance(messages, Message):
        return json.dumps(as_dict(messages), indent=2)
    return json.dumps([as_dict(message) for message in messages], indent=2)


def as_dict(message: Message) -> dict[str, Any]:
    """A message as plain values, ready for `json`."""
    values = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    # The stubs give the fields of the C implementation another, equal type.
    return _fields(values, cast(Iterable[FieldDescriptor], message.DESCRIPTOR.fields))


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """The value without the prefix that repeats its type: PHASE_RUNNING is `running`."""
    value = enum.values_by_number.get(number)
    return _word(enum, value.name) if value is not None else str(number)


def _fields(values: dict[str, Any], fields: Iterable[FieldDescriptor]) -> dict[str, Any]:
    return {field.name: _value(values.get(field.name), field) for field in fields}


def _value(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, list):
        return [_value(item, field) for item in value]
    if value is None:
        return None
    if field.enum_type is not None and isinstance(value, str):
        return _word(field.enum_type, value)
    if field.type in _WIDE_INTEGERS:  # JSON of protobuf has them as strings
        return int(value)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: _value(item, field.message_type.fields_by_name["value"]) for key, item in value.items()}
    if field.message_type is not None and _is_ours(field.message_type):
        return _fields(value, field.message_type.fields)
    return value


def _is_ours(descriptor: Descriptor) -> bool:
    """Not a timestamp or duration, which protobuf writes in their own form."""
    return not descriptor.full_name.startswith("google.protobuf.")


def _word(enum: EnumDescriptor, name: str) -> str:
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"
    return name.removeprefix(prefix).lower()
