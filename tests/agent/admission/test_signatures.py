"""Verification of signed launches, field by field."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from agent.launches import KEY, NOW, RUN_ID, SIGNER, launch, sign, statement
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from runyard.agent.admission.trust.signatures import COORDINATORS, Doubtful, Genuine, examine
from runyard.common.security.signing import SigningKey
from runyard.v1 import placement_pb2, run_pb2

KEYS = {SIGNER.public.key_id: SIGNER.public}
STRANGER = SigningKey(Ed25519PrivateKey.generate())


def reason(sent: run_pb2.LaunchSpec, now: float = NOW) -> str:
    """Why the launch is doubtful."""
    found = examine(KEY, sent, KEYS, now)
    assert isinstance(found, Doubtful)
    return found.reason


def genuine(sent: run_pb2.LaunchSpec, now: float = NOW) -> Genuine:
    """Return the launch that is carried out."""
    found = examine(KEY, sent, KEYS, now)
    assert isinstance(found, Genuine), found
    return found


def test_a_launch_that_was_signed_is_taken_as_it_was_signed() -> None:
    assert genuine(sign(launch())).spec == launch()


def test_it_is_the_same_launch_at_every_attempt() -> None:
    assert isinstance(examine(replace(KEY, attempt=7), sign(launch()), KEYS, NOW), Genuine)


def test_an_older_key_that_is_still_trusted_is_good_enough() -> None:
    keys = {STRANGER.public.key_id: STRANGER.public, **KEYS}
    assert isinstance(examine(KEY, sign(launch()), keys, NOW), Genuine)


# Field by field

ALTERATIONS: dict[str, Callable[[run_pb2.LaunchSpec], object]] = {
    "run_id": lambda spec: setattr(spec, "run_id", "another"),
    "resume_number": lambda spec: setattr(spec, "resume_number", 3),
    "kind": lambda spec: setattr(spec, "kind", run_pb2.LAUNCH_KIND_EXECUTE),
    "worker_args": lambda spec: setattr(spec, "worker_args", "evil"),
    "code_origin": lambda spec: setattr(spec.code_origin, "executable", "/bin/sh"),
    "tags": lambda spec: spec.tags.update({"team": "evil"}),
    "requirements": lambda spec: setattr(spec.requirements, "node", "n1"),
    "policies": lambda spec: spec.policies.grace.FromSeconds(1),
    "environment": lambda spec: spec.environment.update({"SHOP_MODE": "day"}),
    "environment_references": lambda spec: setattr(spec.environment_references["PGPASS"], "env", "OTHERS"),
    "deployment": lambda spec: setattr(spec, "deployment", "test"),
    "job_snapshot_id": lambda spec: setattr(spec, "job_snapshot_id", ""),
    "step_keys": lambda spec: spec.step_keys.append("c"),
    "execution_config_json": lambda spec: setattr(spec, "execution_config_json", '{"a": 1}'),
    "signed": lambda spec: setattr(spec.signed, "key_id", "another"),
}


def test_every_field_of_a_launch_is_signed_or_the_coordinators_or_the_signature() -> None:
    assert set(ALTERATIONS) == {field.name for field in run_pb2.LaunchSpec.DESCRIPTOR.fields}


@pytest.mark.parametrize("field", [name for name in ALTERATIONS if name not in (*COORDINATORS, "signed")])
def test_a_field_that_was_altered_is_named(field: str) -> None:
    sent = sign(launch())
    ALTERATIONS[field](sent)
    assert reason(sent) == f"it is not what was signed: {field} altered on the way"


@pytest.mark.parametrize("field", COORDINATORS)
def test_a_field_of_the_coordinators_is_taken_from_it(field: str) -> None:
    sent = sign(launch())
    ALTERATIONS[field](sent)
    expected = launch()
    ALTERATIONS[field](expected)
    assert genuine(sent).spec == expected


def test_a_field_that_was_added_or_left_out_is_named_too() -> None:
    sent = sign(launch())
    sent.environment["LD_PRELOAD"] = "/tmp/evil.so"
    sent.ClearField("tags")
    assert reason(sent) == "it is not what was signed: tags, environment altered on the way"


# Whose signature, and of what


def test_a_launch_without_a_signature_is_doubtful_with_the_remedy() -> None:
    assert reason(launch()) == "it is not signed; give its launcher a signing_key"


def test_the_signature_of_a_stranger_is_doubtful_with_the_keys_that_are_trusted() -> None:
    why = reason(sign(launch(), signer=STRANGER))
    assert STRANGER.public.key_id in why
    assert SIGNER.public.key_id in why


def test_the_signature_of_a_stranger_under_a_trusted_name_is_doubtful() -> None:
    sent = sign(launch(), signer=STRANGER)
    sent.signed.key_id = SIGNER.public.key_id
    assert "its signature does not match" in reason(sent)


def test_a_signature_that_was_made_for_another_purpose_does_not_fit() -> None:
    sent = sign(launch())
    sent.signed.signature = SIGNER._key.sign(sent.signed.payload)
    assert "its signature does not match" in reason(sent)


@pytest.mark.parametrize("position", range(0, 64, 9))
def test_a_single_bit_of_the_signature_matters(position: int) -> None:
    sent = sign(launch())
    signature = bytearray(sent.signed.signature)
    signature[position] ^= 1
    sent.signed.signature = bytes(signature)
    assert "its signature does not match" in reason(sent)


def test_the_launch_of_another_run_is_not_taken_for_this_one() -> None:
    other = launch()
    other.run_id = "00000000-0000-4000-8000-000000000002"
    assert reason(sign(other)) == f"it was signed for another run, {other.run_id}"
    disguised = sign(other)
    disguised.run_id = RUN_ID
    assert reason(disguised) == f"it was signed for another run, {other.run_id}"


@pytest.mark.parametrize(
    ("signed_at", "lifetime", "why"),
    [
        (NOW - 3600, 3600, ""),
        (NOW - 3660, 3601, ""),
        (NOW - 3660, 3600, "its signature expired 60 s ago"),
        (NOW + 60, 3600, ""),
        (NOW + 61, 3600, "it was signed 61 s in the future"),
    ],
)
def test_clocks_may_differ_by_a_minute(signed_at: int, lifetime: int, why: str) -> None:
    sent = sign(launch(), statement(launch(), signed_at, lifetime).SerializeToString())
    if why:
        assert why in reason(sent)
    else:
        genuine(sent)


def test_a_statement_that_never_expires_is_doubtful() -> None:
    made = statement(launch())
    made.ClearField("expires_at")
    assert "has no validity period" in reason(sign(launch(), made.SerializeToString()))


def test_a_statement_with_a_signature_inside_is_doubtful() -> None:
    assert "a signature inside" in reason(sign(launch(), statement(sign(launch())).SerializeToString()))


# Fields that this version does not know

NEWS = b"\x9a\x06\x04news"
"""Field 99, with a text."""


PARTS: dict[str, Callable[[run_pb2.LaunchStatement], Message]] = {
    "unknown field 99, which": lambda made: made,
    "unknown field 99 of spec,": lambda made: made.spec,
    "unknown field 99 of spec.code_origin,": lambda made: made.spec.code_origin,
    "unknown field 99 of spec.requirements,": lambda made: made.spec.requirements,
    "unknown field 99 of spec.requirements.preferences,": lambda made: (
        made.spec.requirements.preferences.add()
    ),
    "unknown field 99 of spec.policies.grace,": lambda made: made.spec.policies.grace,
    "unknown field 99 of expires_at,": lambda made: made.expires_at,
}


@pytest.mark.parametrize("where", PARTS)
def test_an_unknown_field_is_refused_at_any_depth_and_named(where: str) -> None:
    made = statement(launch())
    PARTS[where](made).MergeFromString(NEWS)
    why = reason(sign(launch(), made.SerializeToString()))
    assert f"what was signed has {where}" in why
    assert "upgrade it" in why


def test_an_unknown_field_inside_of_a_map_is_refused() -> None:
    entry = b"\x0a\x01k\x12\x01v\x18\x05"  # key, value, and a field 3
    spec = launch().SerializeToString() + b"\x32" + bytes([len(entry)]) + entry
    payload = b"\x0a" + _varint(len(spec)) + spec
    made = statement(launch())
    made.ClearField("spec")
    why = reason(sign(launch(), payload + made.SerializeToString()))
    assert "what was signed has unknown field" in why


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7]) if number > 0x7F else bytes([number])


@given(st.binary(max_size=200))
def test_whatever_bytes_are_signed_never_crash(payload: bytes) -> None:
    reason(sign(launch(), payload))


@given(st.integers(min_value=0, max_value=400), st.integers(min_value=0, max_value=255))
def test_a_statement_with_another_byte_is_doubtful_or_the_same(position: int, byte: int) -> None:
    payload = bytearray(statement(launch()).SerializeToString())
    payload[position % len(payload)] = byte
    found = examine(KEY, sign(launch(), bytes(payload)), KEYS, NOW)
    if isinstance(found, Genuine):
        assert found.spec == launch()


# What the coordinator chose


def chosen(sent: run_pb2.LaunchSpec, **requirements: Any) -> frozenset[str]:
    """Return the choices that no signed part of the launch requires."""
    whole = sign(sent)
    whole.requirements.CopyFrom(placement_pb2.Requirements(**requirements))
    return genuine(whole).unsigned_choices


def located(**origin: str) -> run_pb2.LaunchSpec:
    """A launch from such a code location."""
    return launch(code_origin=run_pb2.CodeOrigin(**origin))


@pytest.mark.parametrize(
    ("sent", "requirements", "choices"),
    [
        (launch(), {}, set()),
        (launch(), {"driver": "process"}, set()),
        (launch(), {"driver": "docker"}, {"driver"}),
        (launch(tags={"runyard/driver": "docker"}), {"driver": "docker"}, set()),
        (launch(tags={"runyard/driver": "docker"}), {"driver": "process"}, {"driver"}),
        (launch(tags={"runyard/driver": "docker"}), {}, {"driver"}),
        (
            launch(tags={"runyard/config": '{"driver": "docker", "image": "etl:1"}'}),
            {"driver": "docker"},
            set(),
        ),
        (launch(tags={"runyard/config": '{"image": "etl:1"}'}), {"image": "etl:1"}, set()),
        (launch(tags={"runyard/config": "{"}), {"image": "etl:1"}, {"image"}),
        (located(container_context_json='{"runyard": {"driver": "docker"}}'), {"driver": "docker"}, set()),
        (located(container_context_json='{"runyard": ["driver"]}'), {"driver": "docker"}, {"driver"}),
        (launch(requirements=placement_pb2.Requirements(driver="docker")), {"driver": "docker"}, set()),
        (launch(), {"image": "evil:1"}, {"image"}),
        (located(image="etl:1"), {"image": "etl:1"}, set()),
        (located(image="etl:1"), {"image": ""}, set()),
        (located(image="etl:1"), {"image": "etl:2"}, {"image"}),
        (launch(tags={"runyard/image": "etl:2"}), {"image": "etl:2"}, set()),
    ],
)
def test_a_driver_or_image_that_nothing_signed_asks_for_is_the_coordinators_choice(
    sent: run_pb2.LaunchSpec, requirements: dict[str, str], choices: set[str]
) -> None:
    assert chosen(sent, **requirements) == choices
