"""Messages of version 0.1.0 are read with the same meaning and written with the same bytes."""

import base64
from typing import Any

import pytest
from compatibility.comparing import differences, recorded
from compatibility.readers import digest_of, is_genuine, plain, read_message, read_protocol

MESSAGES: dict[str, Any] = {
    each["name"]: each for each in [*recorded("messages.json"), *recorded("statuses.json")]
}

PROTOCOL: dict[str, Any] = recorded("protocol.json")

SIGNATURE: dict[str, Any] = recorded("signature.json")


@pytest.mark.parametrize("name", MESSAGES)
def test_message_is_read_to_the_same_values(name: str) -> None:
    old = MESSAGES[name]
    message = read_message(old["type"], base64.b64decode(old["bytes"]))
    assert differences(old["json"], plain(message)) == []


@pytest.mark.parametrize("name", MESSAGES)
def test_message_is_written_with_the_same_bytes(name: str) -> None:
    data = base64.b64decode(MESSAGES[name]["bytes"])
    message = read_message(MESSAGES[name]["type"], data)
    assert message.SerializeToString(deterministic=True) == data
    message.DiscardUnknownFields()
    assert message.SerializeToString(deterministic=True) == data, "a field of 0.1.0 is unknown"


@pytest.mark.parametrize("part", ["messages", "enums", "services"])
def test_fields_enum_values_and_methods_keep_their_numbers_names_and_types(part: str) -> None:
    assert differences(PROTOCOL[part], read_protocol()[part]) == []


def test_signature_of_a_launch_is_valid_until_it_expires() -> None:
    launch = base64.b64decode(SIGNATURE["launch"])
    assert is_genuine(launch, SIGNATURE["public_key"], SIGNATURE["now"])
    assert not is_genuine(launch, SIGNATURE["public_key"], SIGNATURE["now"] + 3_600)


def test_launch_signature_covers_the_same_bytes() -> None:
    launch = read_message("LaunchSpec", base64.b64decode(SIGNATURE["launch"]))
    signed = plain(launch)["signed"]
    assert signed["payload"] == SIGNATURE["payload"]
    assert signed["signature"] == SIGNATURE["signature"]
    assert signed["key_id"] == SIGNATURE["key_id"]
    statement = read_message("LaunchStatement", base64.b64decode(SIGNATURE["payload"]))
    assert base64.b64encode(statement.SerializeToString(deterministic=True)).decode() == SIGNATURE["payload"]


def test_repeated_launch_has_the_same_digest() -> None:
    assert digest_of(base64.b64decode(SIGNATURE["launch"])) == SIGNATURE["digest"]
