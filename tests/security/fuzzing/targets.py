"""What reads text or bytes that others wrote, and what each of these promises whatever it is given.

A target takes any bytes, and raises only when it has found something.
"""

import base64
import json
import math
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.launches import KEY, NOW, SIGNER, launch, sign, statement
from coordinator.routing.files import EVERYTHING
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError
from harness.certificates import CLIENT, Authority

from runyard.agent.admission.errors import UnusableLaunch
from runyard.agent.admission.specs import build_spec_record
from runyard.agent.admission.trust.signatures import Doubtful, examine
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.docker import DockerSettings
from runyard.agent.spec_record.identities import identity_of
from runyard.agent.supervisor.records import (
    ContainerRecord,
    ExitRecord,
    Record,
    SpecRecord,
    StopRequest,
    UnreadableRecord,
    WorkerRecord,
)
from runyard.client.errors import InvalidAddress
from runyard.common.durations import parse_duration
from runyard.common.quantities import LARGEST, parse_quantity, show_quantity
from runyard.common.references import parse_reference
from runyard.common.security.identity import InvalidIdentity, parse_identity
from runyard.common.security.join_token import InvalidToken, parse_join_credential, parse_join_token
from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.common.transport.address import is_local, parse_address
from runyard.coordinator.auth.callers import NotIdentified, read_certificate
from runyard.coordinator.ca.signing_requests import read_request
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.json_pieces import EACH, pieces
from runyard.coordinator.core.requirements.labels import parse_label_rule
from runyard.coordinator.core.requirements.snapshot import job_shape
from runyard.coordinator.core.requirements.tags import SCHEMA, layer_from_tags
from runyard.coordinator.grpc.errors import TooLarge
from runyard.coordinator.grpc.messages.requests import check_spec, launch_of
from runyard.coordinator.routing_config.reading import read_routing
from runyard.v1 import run_pb2

LONGEST_REASON: Final = 2_000
"""Characters: who sends megabytes is not sent them back."""

SNAPSHOTS: Final = Path(__file__).parents[2] / "coordinator" / "requirements" / "data"


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        probe: Has it read these bytes.
        seeds: What is in order, to begin with.
        words: What means something to it.
    """

    probe: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return self.probe.__name__


def quantities(data: bytes) -> None:
    name, _, written = _text(data).partition(":")
    try:
        amount = parse_quantity(name, written)
    except ValueError:
        return
    assert 0 <= amount <= LARGEST
    assert show_quantity(name, amount)


def durations(data: bytes) -> None:
    try:
        seconds = parse_duration(_text(data))
    except ValueError:
        return
    assert seconds >= 0
    assert math.isfinite(seconds)


def addresses(data: bytes) -> None:
    try:
        address = parse_address(_text(data))
    except InvalidAddress:
        return
    assert parse_address(str(address)) == address
    is_local(address)


def label_rules(data: bytes) -> None:
    try:
        rule = parse_label_rule(_text(data))
    except ValueError:
        return
    assert parse_label_rule(str(rule)) == rule
    rule.holds({rule.key: "1"})


def identities(data: bytes) -> None:
    uri = _text(data)
    try:
        identity = parse_identity(uri)
    except InvalidIdentity:
        return
    assert identity.uri == uri


def join_tokens(data: bytes) -> None:
    text = _text(data)
    for read in (parse_join_token, parse_join_credential):
        try:
            token = read(text)
        except InvalidToken as refusal:
            _is_for_people(refusal)
        else:
            assert read(token.text) == token


def certificates(data: bytes) -> None:
    try:
        found = read_certificate(data)
    except NotIdentified as refusal:
        _is_for_people(refusal)
    else:
        assert found.identity


def signing_requests(data: bytes) -> None:
    try:
        read_request(_text(data))
    except InvalidField as refusal:
        _is_for_people(refusal)


def secret_references(data: bytes) -> None:
    try:
        parse_reference(_text(data))
    except ValueError as refusal:
        _is_for_people(refusal)


def signed_launches(data: bytes) -> None:
    found = examine(KEY, sign(launch(), data), {SIGNER.public.key_id: SIGNER.public}, NOW)
    if isinstance(found, Doubtful):
        _is_for_people(found.reason)
    else:
        assert found.spec == run_pb2.LaunchStatement.FromString(data).spec


def requirement_tags(data: bytes) -> None:
    name, _, written = _text(data).partition("=")
    try:
        layer_from_tags({f"runyard/{name}": written}, "the run")
    except InvalidField as refusal:
        _is_for_people(refusal)


def job_snapshots(data: bytes) -> None:
    try:
        job_shape(_text(data))
    except ValueError:
        return


def json_pieces(data: bytes) -> None:
    text = _text(data)
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    try:
        found = list(pieces(text, [("a",), ("b", EACH), ("c", "d")]))
    except (ValueError, RecursionError):
        assert not isinstance(whole, dict), "refused what is JSON"
        return
    if isinstance(whole, dict) and "a" in whole and text.count('"a"') == 1 and "\\" not in text:
        # NaN is equal to nothing, not even itself.
        assert repr(dict(found).get(("a",))) == repr(whole["a"]), "reads something else than the whole says"


def routing_files(data: bytes) -> None:
    try:
        read_routing(data)
    except InvalidYamlFile as refusal:
        _is_for_people(*refusal.problems)


RECORDS: Final[Sequence[type[Record]]] = (SpecRecord, WorkerRecord, ContainerRecord, StopRequest, ExitRecord)


def records(data: bytes) -> None:
    for kind in RECORDS:
        try:
            record = kind.decode(data)
        except UnreadableRecord:
            continue
        assert kind.decode(record.encode()) == record or b"NaN" in data


AGENT: Final = AgentSettings(node_id="node-a", docker=DockerSettings())


def launches_on_a_node(data: bytes) -> None:
    spec = _spec(data)
    try:
        build_spec_record(AGENT, identity_of(spec), spec, {}).encode()
    except UnusableLaunch as refusal:
        _is_for_people(refusal)


def launches_at_the_coordinator(data: bytes) -> None:
    spec = _spec(data)
    try:
        check_spec(spec)
        launch_of(spec, None)
    except (InvalidField, TooLarge) as refusal:
        _is_for_people(refusal)


def container_contexts(data: bytes) -> None:
    spec = _usual_spec()
    spec.code_origin.container_context_json = _text(data)
    spec.requirements.driver = "docker"
    launches_on_a_node(spec.SerializeToString())
    spec.requirements.Clear()
    launches_at_the_coordinator(spec.SerializeToString())


def _is_for_people(*reasons: object) -> None:
    assert reasons
    assert all(0 < len(str(reason)) <= LONGEST_REASON for reason in reasons)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _usual_spec(**fields: Any) -> run_pb2.LaunchSpec:
    spec = run_pb2.LaunchSpec(
        run_id="00000000-0000-4000-8000-000000000001",
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        worker_args="{}",
        deployment="shop",
        tags={"runyard/memory": "16Gi", "dagster/priority": "3"},
    )
    spec.MergeFrom(run_pb2.LaunchSpec(**fields))
    return spec


def _spec(data: bytes) -> run_pb2.LaunchSpec:
    try:
        return run_pb2.LaunchSpec.FromString(data)
    except DecodeError:
        return _usual_spec()


_CONTEXT: Final = {
    "docker": {
        "image": "etl:1",
        "env_vars": ["A=b"],
        "networks": ["n"],
        "container_kwargs": {"mem_limit": "1g"},
    },
    "runyard": {"cpu": 2, "labels": {"zone": ["a", "b"]}, "on_disconnect": {"stop_after": "5m"}},
}

_AUTHORITY: Final = Authority()
_LEAF: Final = _AUTHORITY.issue(CLIENT.uri)
_PEM_WORDS: Final = (
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE REQUEST-----\n",
    b"MII",
    b"\n",
    b"=",
)
_REQUEST: Final = (
    x509.CertificateSigningRequestBuilder(x509.Name([]))
    .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    .public_bytes(Encoding.PEM)
)
_DER_TEXT: Final = base64.urlsafe_b64encode(ssl.PEM_cert_to_DER_cert(_AUTHORITY.pem.decode())).rstrip(b"=")

_PIECES: Final = (b'{"a": [1, {"x": null}], "b": {"y": 2}, "c": {"d": "e"}, "f": [[[[]]]]}', b' {"a":1e5} ')
_JSON_WORDS: Final = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b":",
    b",",
    b"null",
    b"NaN",
    b"-1e99",
    b"\\u0000",
    b"\\ud800",
)

_TAGS: Final = (
    b'config={"cpu": 2, "memory": "16Gi", "labels": {"zone": ["a", "b"]}, "prefer": {"zone=a": 5}}',
    b"labels=zone=a|b,!spot,cores>=16",
    b"on_disconnect=stop_after=5m",
    b'resources={"license": 1}',
    b"grace=1h30m",
    b"tolerations=gpu,team=x",
)

TARGETS: Final = {
    target.name: target
    for target in (
        Target(
            quantities, (b"cpu:500m", b"memory:1.5Gi", b"gpu:2"), (b"cpu:", b"memory:", b"Ki", b"PB", b"1e9")
        ),
        Target(durations, (b"90", b"1h30m", b"2d"), (b"d", b"h", b"m", b"s", b".5", b"9" * 400)),
        Target(
            addresses,
            (b"127.0.0.1:7171", b"[::1]:80", b"unix:/run/x", b"unix:///x", b"host:0"),
            (b"unix:", b"[", b"]", b"::", b"localhost"),
        ),
        Target(
            label_rules,
            (b"zone=a|b", b"zone!=a", b"!spot", b"cores>=16"),
            (b"!=", b">=", b"<=", b"|", b"nan"),
        ),
        Target(
            identities,
            (b"spiffe://runyard/agent/east/node-a", b"spiffe://runyard/client/dagster"),
            (b"spiffe://", b"/agent/", b"/coordinator/", b"/admin/", b"/local/local", b"..", b"%2f"),
        ),
        Target(
            join_tokens,
            (b"ryj1.0123456789ab." + b"A" * 43, b"ryj1.0123456789ab." + b"A" * 43 + b"." + _DER_TEXT),
            (b"ryj1.", b".", b"=", b"-", b"_"),
        ),
        Target(certificates, (_LEAF.certificate, _AUTHORITY.pem), _PEM_WORDS),
        Target(signing_requests, (_REQUEST,), _PEM_WORDS),
        Target(
            secret_references, (b"A@env:B", b"A@file:/run/secrets/a", b"A=b"), (b"@env:", b"@file:", b"=")
        ),
        Target(signed_launches, (statement(launch()).SerializeToString(),)),
        Target(requirement_tags, _TAGS, tuple(f"{key}=".encode() for key in SCHEMA)),
        Target(
            job_snapshots, tuple(path.read_bytes() for path in sorted(SNAPSHOTS.glob("*.json"))), _JSON_WORDS
        ),
        Target(json_pieces, _PIECES, _JSON_WORDS),
        Target(
            routing_files,
            (EVERYTHING.encode(),),
            (b"rules:", b"clusters:", b"match:", b"&a", b"*a", b"<<:", b"!!python/object:", b"? "),
        ),
        Target(
            records,
            (
                SpecRecord(argv=["a"], env={"A": "b"}).encode(),
                WorkerRecord(1, 2, "b", 3, 4, 5.0).encode(),
                ContainerRecord("id", 1, "b").encode(),
                StopRequest(1.0, "because", 2.0).encode(),
                ExitRecord("exited", "exit", 1.0, 0).encode(),
            ),
            (*_JSON_WORDS, b'"version": 1', b'"version": 2'),
        ),
        Target(launches_on_a_node, (_usual_spec().SerializeToString(),)),
        Target(launches_at_the_coordinator, (_usual_spec().SerializeToString(),)),
        Target(container_contexts, (json.dumps(_CONTEXT).encode(),), _JSON_WORDS),
    )
}
