"""Messages of version 0.1.0 mean the same today, and today's messages mean the same to 0.1.0."""

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
def test_message_is_read_as_it_was_meant(name: str) -> None:
    old = MESSAGES[name]
    message = read_message(old["type"], base64.b64decode(old["bytes"]))
    assert differences(old["json"], plain(message)) == []


@pytest.mark.parametrize("name", MESSAGES)
def test_message_is_written_with_the_same_bytes(name: str) -> None:
    data = base64.b64decode(MESSAGES[name]["bytes"])
    message = read_message(MESSAGES[name]["type"], data)
    assert message.SerializeToString(deterministic=True) == data
    message.DiscardUnknownFields()
    assert message.SerializeToString(deterministic=True) == data, "a field of 0.1.0 is not known any more"


@pytest.mark.parametrize("part", ["messages", "enums", "services"])
def test_no_field_no_word_and_no_call_is_gone_or_means_something_else(part: str) -> None:
    assert differences(PROTOCOL[part], read_protocol()[part]) == []


def test_signature_of_a_launch_holds() -> None:
    launch = base64.b64decode(SIGNATURE["launch"])
    assert is_genuine(launch, SIGNATURE["public_key"], SIGNATURE["now"])
    assert not is_genuine(launch, SIGNATURE["public_key"], SIGNATURE["now"] + 3_600)


def test_what_is_signed_has_not_changed() -> None:
    launch = read_message("LaunchSpec", base64.b64decode(SIGNATURE["launch"]))
    signed = plain(launch)["signed"]
    assert signed["payload"] == SIGNATURE["payload"]
    assert signed["signature"] == SIGNATURE["signature"]
    assert signed["key_id"] == SIGNATURE["key_id"]
    statement = read_message("LaunchStatement", base64.b64decode(SIGNATURE["payload"]))
    assert base64.b64encode(statement.SerializeToString(deterministic=True)).decode() == SIGNATURE["payload"]


def test_repeated_launch_is_known_again_by_its_digest() -> None:
    assert digest_of(base64.b64decode(SIGNATURE["launch"])) == SIGNATURE["digest"]
