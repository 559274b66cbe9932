"""Enrolment of nodes: over real TLS, with a clock that the test sets."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from coordinator.ca.joining_side import (
    Clock,
    JoinSide,
    PrivateKey,
    joining,
    make_authority,
    make_request,
    subject_of,
)
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness.waiting import await_until

from runyard.common.security.identity import Identity, Role
from runyard.common.security.join_token import JoinCredential
from runyard.coordinator.auth.callers import Caller
from runyard.coordinator.ca.enrolment import NOT_VALID, JoinRefused
from runyard.coordinator.core.errors import InvalidField

DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def side(tmp_path: Path, clock: Clock) -> AsyncIterator[JoinSide]:
    async with joining(tmp_path, clock) as opened:
        yield opened


# Joining


async def test_node_joins_with_the_tokens_identity_and_its_own_key(side: JoinSide) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    token = await side.token()
    answer = await side.join(token, make_request(key))
    certificate = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
    assert certificate.public_key() == key.public_key()
    assert list(subject_of(answer)) == [x509.UniformResourceIdentifier("spiffe://runyard/agent/east/n1")]
    assert side.directory.issuer_of(answer.certificate_pem.encode()) == side.directory.signing.certificate
    assert answer.authority_pem == side.directory.trusted_pem
    assert (await side.record(token)).used == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["p-256", "p-384", "ed25519"],
)
async def test_good_keys_of_every_kind_get_a_certificate(
    side: JoinSide, make: Callable[[], PrivateKey]
) -> None:
    assert await side.join(await side.token(), make_request(make()))


async def test_token_brings_the_authority_so_that_nothing_else_is_trusted(
    side: JoinSide, tmp_path: Path
) -> None:
    token = await side.token()
    assert token.authority_pem == side.directory.trusted_pem.encode()
    elsewhere = make_authority(tmp_path / "rogue")
    stranger = type(token)(token.credential, elsewhere.signing.certificate.public_bytes(Encoding.DER))
    code, details = await side.refused(stranger)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "CERTIFICATE_VERIFY_FAILED" in details
    assert (await side.record(token)).used == 0


async def test_health_is_open_there_and_nothing_else_is_served(side: JoinSide) -> None:
    authority = side.directory.trusted_pem.encode()
    assert (await side.health(authority)).status


# The same request again


async def test_same_request_within_a_minute_gets_the_same_certificate(side: JoinSide, clock: Clock) -> None:
    token, request = await side.token(), make_request()
    first = await side.join(token, request)
    clock.now += 59
    assert await side.join(token, request) == first
    assert (await side.record(token)).used == 1


async def test_same_request_is_answered_even_if_the_token_has_expired_meanwhile(
    side: JoinSide, clock: Clock
) -> None:
    token, request = await side.token(ttl=10.0), make_request()
    first = await side.join(token, request)
    clock.now += 30
    assert await side.join(token, request) == first


async def test_same_request_after_a_minute_is_a_replay(side: JoinSide, clock: Clock) -> None:
    token, request = await side.token(), make_request()
    await side.join(token, request)
    clock.now += 61
    assert await side.refused(token, request) == (DENIED, NOT_VALID)


async def test_another_request_with_a_used_token_is_a_replay(side: JoinSide) -> None:
    token = await side.token()
    await side.join(token)
    assert await side.refused(token, node_id="n2") == (DENIED, NOT_VALID)
    assert await side.refused(token) == (DENIED, NOT_VALID)


async def test_answer_is_given_again_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    request = make_request()
    async with joining(tmp_path, clock) as side:
        token = await side.token()
        first = await side.join(token, request)
    async with joining(tmp_path, clock) as side:
        assert await side.join(token, request) == first
        assert await side.refused(token) == (DENIED, NOT_VALID)


async def test_token_that_was_made_before_a_restart_is_good_after_it(tmp_path: Path, clock: Clock) -> None:
    async with joining(tmp_path, clock) as side:
        token = await side.token()
    async with joining(tmp_path, clock) as side:
        await side.join(token)


# Tokens that are not good


async def test_all_tokens_that_are_not_good_are_refused_alike(side: JoinSide, clock: Clock) -> None:
    unknown = JoinCredential("0" * 12, "A" * 43).text
    good = await side.token()
    wrong = JoinCredential(good.credential.token_id, "A" * 43).text
    refusals = {
        await side.refused(good, text=text)
        for text in (unknown, wrong, "", "nonsense", "ryj1.a.b", good.text)
    }
    used = await side.token()
    await side.join(used)
    refusals.add(await side.refused(used, node_id="n2"))
    deleted = await side.token()
    assert await side.enrolment.delete_token(deleted.credential.token_id)
    refusals.add(await side.refused(deleted))
    clock.now += 901
    refusals.add(await side.refused(good))
    assert refusals == {(DENIED, NOT_VALID)}


async def test_token_expires_to_the_second(side: JoinSide, clock: Clock) -> None:
    token = await side.token(ttl=900.0)
    clock.now += 899.0
    await side.join(token)
    late = await side.token(ttl=900.0)
    clock.now += 900.0
    assert await side.refused(late, node_id="n2") == (DENIED, NOT_VALID)


async def test_token_for_three_lets_three_join(side: JoinSide) -> None:
    token = await side.token(uses=3)
    for number in range(3):
        await side.join(token, node_id=f"n{number}")
    assert await side.refused(token, node_id="n3") == (DENIED, NOT_VALID)


async def test_of_many_concurrent_joins_with_one_use_exactly_one_succeeds(side: JoinSide) -> None:
    token = await side.token()

    racing = (side.join(token, node_id=f"n{number}") for number in range(12))
    ends = await asyncio.gather(*racing, return_exceptions=True)
    losers = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert {(end.code(), end.details()) for end in losers} == {(DENIED, NOT_VALID)}
    assert len(losers) == 11
    assert (await side.record(token)).used == 1


async def test_secret_of_a_token_is_nowhere_on_disk(side: JoinSide, tmp_path: Path) -> None:
    token = await side.token()
    await side.join(token)
    for path in (tmp_path / "state").rglob("*"):
        if path.is_file():
            assert token.credential.secret.encode() not in path.read_bytes()
    assert token.credential.secret not in repr(token)


# Who one may be


async def test_token_for_another_cluster_is_refused_and_not_used_up(side: JoinSide) -> None:
    token = await side.token()
    code, details = await side.refused(token, cluster="west")
    assert code is DENIED
    assert "the join token is for cluster 'east', and this agent's settings say 'west'" in details
    assert (await side.record(token)).used == 0
    await side.join(token)


async def test_token_for_another_node_is_refused_and_not_used_up(side: JoinSide) -> None:
    token = await side.token("n7")
    code, details = await side.refused(token, node_id="n1")
    assert code is DENIED
    assert "the join token is for node_id 'n7', and this agent's settings say 'n1'" in details
    answer = await side.join(token, node_id="n7")
    assert "spiffe://runyard/agent/east/n7" in subject_of(answer).get_values_for_type(
        x509.UniformResourceIdentifier
    )


async def test_node_without_a_node_id_gets_that_of_the_token(side: JoinSide) -> None:
    answer = await side.join(await side.token("n7"), node_id="", cluster="")
    assert subject_of(answer).get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://runyard/agent/east/n7"
    ]


@pytest.mark.parametrize("node_id", ["", "a/b", "..", "n1\n", "ü", "x" * 129, "n1/../../admin/root"])
async def test_name_that_can_be_no_nodes_is_refused_and_the_token_not_used_up(
    side: JoinSide, node_id: str
) -> None:
    token = await side.token()
    code, details = await side.refused(token, node_id=node_id)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("node_id: ")
    assert (await side.record(token)).used == 0


async def test_name_that_is_taken_is_refused_and_the_token_not_used_up(side: JoinSide) -> None:
    await side.join(await side.token())
    token = await side.token()
    code, details = await side.refused(token)
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert "node ID 'n1' is taken" in details
    assert "`runyard token create --node n1`" in details
    assert (await side.record(token)).used == 0
    await side.join(token, node_id="n2")


async def test_name_is_free_again_when_its_certificate_has_expired(side: JoinSide, clock: Clock) -> None:
    await side.join(await side.token())
    clock.now += 8 * 86_400.0
    await side.join(await side.token())


async def test_token_for_one_node_lets_it_join_with_a_new_key(side: JoinSide) -> None:
    await side.join(await side.token())
    await side.join(await side.token("n1"))


# Requests for certificates


async def test_names_in_the_request_are_ignored(side: JoinSide) -> None:
    request = make_request(
        None,
        x509.UniformResourceIdentifier("spiffe://runyard/admin/root"),
        x509.DNSName("coordinator.example"),
    )
    answer = await side.join(await side.token(), request)
    assert list(subject_of(answer)) == [x509.UniformResourceIdentifier("spiffe://runyard/agent/east/n1")]


def body_of(request: str) -> bytes:
    return base64.b64decode("".join(request.splitlines()[1:-1]))


def request_of(body: bytes) -> str:
    lines = base64.encodebytes(body).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n"


def with_wrong_signature() -> str:
    body = body_of(make_request())
    return request_of(body[:-1] + bytes([body[-1] ^ 1]))


def with_key_of_another() -> str:
    """The request of one, in which the public key of another stands."""
    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    return request_of(body_of(make_request(mine)).replace(public(mine), public(other)))


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


NO_REQUEST = "is not a certificate request (PKCS #10) in PEM"
WRONG_KEY = "the key must be EC P-256, EC P-384 or Ed25519"
NOT_SIGNED = "is not signed with the key that it holds"


@pytest.mark.parametrize(
    ("request_pem", "problem"),
    [
        ("", NO_REQUEST),
        ("nonsense", NO_REQUEST),
        (request_of(b"\0\0\0"), NO_REQUEST),
        (with_wrong_signature(), NOT_SIGNED),
        (with_key_of_another(), NOT_SIGNED),
        (make_request(rsa.generate_private_key(65537, 1024)), WRONG_KEY),
        (make_request(rsa.generate_private_key(65537, 2048)), WRONG_KEY),
        (make_request(ec.generate_private_key(ec.SECP256K1())), WRONG_KEY),
        (make_request() + " " * 20_000, "a request has at most 16384"),
    ],
    ids=["none", "text", "zeros", "signature", "swapped-key", "rsa-1024", "rsa-2048", "secp256k1", "20-kb"],
)
async def test_odd_request_is_refused_with_the_reason_and_the_token_not_used_up(
    side: JoinSide, request_pem: str, problem: str
) -> None:
    token = await side.token()
    code, details = await side.refused(token, request_pem)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("csr_pem: ")
    assert problem in details
    assert (await side.record(token)).used == 0
    await side.join(token)


async def test_megabyte_of_request_is_not_even_read(side: JoinSide) -> None:
    token = await side.token()
    code, _ = await side.refused(token, make_request() * 2_000)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await side.join(token)


# Renewal


def caller(side: JoinSide, pem: str) -> Caller:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return Caller(
        Identity(Role.AGENT, "n1", "east"),
        format(certificate.serial_number, "x"),
        "ipv4:127.0.0.1:1",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


async def test_renewal_gives_the_same_identity_to_another_key(side: JoinSide) -> None:
    joined = await side.join(await side.token())
    key = ed25519.Ed25519PrivateKey.generate()
    renewed = await side.enrolment.renew(caller(side, joined.certificate_pem), make_request(key))
    certificate = x509.load_pem_x509_certificate(renewed.certificate.encode())
    assert certificate.public_key() == key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://runyard/agent/east/n1")]


@pytest.mark.parametrize("role", [Role.CLIENT, Role.OPERATOR, Role.ADMIN, Role.LOCAL])
async def test_only_agents_renew_here(side: JoinSide, role: Role) -> None:
    with pytest.raises(JoinRefused, match="only agents"):
        await side.enrolment.renew(Caller(Identity(role, "ada"), "", "unix:"), make_request())


# Revocation


async def test_revoked_node_stays_refused_and_may_join_with_a_new_token(tmp_path: Path, clock: Clock) -> None:
    async with joining(tmp_path, clock) as side:
        joined = caller(side, (await side.join(await side.token())).certificate_pem)
        renewed = caller(side, (await side.enrolment.renew(joined, make_request())).certificate)
        assert await side.revoker.revoke_node("n1", "stolen") == 2
        for held in (joined, renewed):
            assert side.revocations.is_revoked(held.identity, held.serial, held.not_before)
            with pytest.raises(JoinRefused, match="was revoked"):
                await side.enrolment.renew(held, make_request())
    async with joining(tmp_path, clock) as side:
        assert side.revocations.is_revoked(joined.identity, joined.serial, joined.not_before)
        again = caller(side, (await side.join(await side.token())).certificate_pem)
        assert not side.revocations.is_revoked(again.identity, again.serial, again.not_before)
        assert side.revocations.is_revoked(joined.identity, joined.serial, joined.not_before)
        found = await side.revoker.certificates("n1")
        assert sorted(revoked for _, revoked in found) == [False, True, True]


async def test_answer_that_was_revoked_is_not_given_again(side: JoinSide) -> None:
    token, request = await side.token(), make_request()
    await side.join(token, request)
    await side.revoker.revoke_node("n1", "stolen")
    assert await side.refused(token, request) == (DENIED, NOT_VALID)


async def test_other_nodes_and_roles_of_that_name_are_not_touched(side: JoinSide) -> None:
    await side.revoker.revoke_node("n1", "")
    for identity in (Identity(Role.AGENT, "n2", "east"), Identity(Role.CLIENT, "n1")):
        assert not side.revocations.is_revoked(identity, "1", side.clock.now - 60)


@pytest.mark.parametrize("written", ["0a:ff:01", "AFF01", "0aff01", "000aff01"])
async def test_single_certificate_is_revoked_by_its_serial_however_it_is_written(
    tmp_path: Path, clock: Clock, written: str
) -> None:
    admin = Identity(Role.ADMIN, "eve")
    async with joining(tmp_path, clock) as side:
        await side.revoker.revoke_certificate(written, "left the company")
        assert side.revocations.is_revoked(admin, "aff01", clock.now)
    async with joining(tmp_path, clock) as side:
        assert side.revocations.is_revoked(admin, "aff01", clock.now)
        assert not side.revocations.is_revoked(admin, "aff02", clock.now)


@pytest.mark.parametrize("written", ["", "0", "xyz", "a" * 41, "a b", "ä"])
async def test_invalid_serial_number_is_refused(side: JoinSide, written: str) -> None:
    with pytest.raises(InvalidField, match=re.escape("serial: ")):
        await side.revoker.revoke_certificate(written, "")


# Housekeeping


async def test_records_that_expired_long_ago_are_deleted(side: JoinSide, clock: Clock) -> None:
    token = await side.token()
    await side.join(token)
    side.runtime.run_in_background(side.enrolment.clean_up)
    await side.runtime.until_durable()
    assert await side.enrolment.tokens()
    clock.now += 9 * 86_400.0
    side.runtime.run_in_background(side.enrolment.clean_up)

    async def forgotten() -> bool | None:
        return not await side.enrolment.tokens()

    gone: bool = await await_until(forgotten, "the token is forgotten")
    assert gone
    clock.now -= 9 * 86_400.0
    assert await side.revoker.certificates("") == []


# While the authority rotates


async def test_nodes_join_through_a_whole_rotation(side: JoinSide) -> None:
    old = side.directory.signing.name
    before = await side.token()
    side.directory.rotate()
    during = await side.token()
    for number, token in enumerate((before, during)):
        answer = await side.join(token, node_id=f"n{number}")
        assert answer.authority_pem.count("BEGIN CERTIFICATE") == 2
        assert side.directory.issuer_of(answer.certificate_pem.encode()) == side.directory.signing.certificate
    side.directory.finish()
    answer = await side.join(await side.token(), node_id="n9")
    assert answer.authority_pem.count("BEGIN CERTIFICATE") == 1
    assert old != side.directory.signing.name
