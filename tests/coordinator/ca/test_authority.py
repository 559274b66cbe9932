"""The built-in authority: its certificates, and its directory over time."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from runyard.common.security.identity import Identity, Role
from runyard.common.transport.tls import TlsFiles
from runyard.coordinator.ca.authority import Authority, UnusableKey, Validity, make_key
from runyard.coordinator.ca.authority_directory import AuthorityDirectory, AuthorityError

AGENT = Identity(Role.AGENT, "n1", "east")
COORDINATOR = Identity(Role.COORDINATOR, "main")
ADMIN = Identity(Role.ADMIN, "ada")
NOW = 1_800_000_000.0
HOUR = 3600.0


@pytest.fixture
def authority() -> Authority:
    return Authority.make("runyard", NOW)


@pytest.fixture
def directory(tmp_path: Path) -> AuthorityDirectory:
    made = AuthorityDirectory(tmp_path / "ca")
    made.init("runyard")
    return made


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def uses_of(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def sign(authority: Authority, identity: Identity, *hosts: str, lifetime: float = HOUR) -> x509.Certificate:
    key = make_key().public_key()
    return authority.sign(key, identity, Validity.lasting(lifetime, NOW), hosts)


def files_in(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")


def leaf_in(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())


# What certificates say


def test_authority_signs_no_further_authority_and_vouches_for_one_trust_domain(authority: Authority) -> None:
    extensions = authority.certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    names = extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert names.value.permitted_subtrees == [x509.UniformResourceIdentifier("runyard")]


def test_agent_gets_its_identity_and_is_no_server(authority: Authority) -> None:
    certificate = sign(authority, AGENT)
    assert list(names_of(certificate)) == [x509.UniformResourceIdentifier("spiffe://runyard/agent/east/n1")]
    assert uses_of(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_coordinator_is_a_server_under_its_names_and_addresses_and_no_client(authority: Authority) -> None:
    certificate = sign(authority, COORDINATOR, "cluster.example", "10.0.0.7", "::1")
    names = names_of(certificate)
    assert names.get_values_for_type(x509.DNSName) == ["cluster.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "::1"]
    assert uses_of(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_certificate_begins_a_minute_early_since_clocks_differ(authority: Authority) -> None:
    certificate = sign(authority, AGENT)
    assert certificate.not_valid_before_utc.timestamp() == NOW - 60
    assert certificate.not_valid_after_utc.timestamp() == NOW + HOUR


def test_short_certificate_begins_only_a_tenth_of_its_life_early(authority: Authority) -> None:
    assert sign(authority, AGENT, lifetime=10.0).not_valid_before_utc.timestamp() == NOW - 1


def test_no_certificate_outlives_the_authority(authority: Authority) -> None:
    certificate = sign(authority, AGENT, lifetime=20 * 365 * 86_400.0)
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_serial_numbers_are_large_and_differ(authority: Authority) -> None:
    serials = {sign(authority, AGENT).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert max(serials).bit_length() > 140


def test_another_trust_domain_is_not_vouched_for(authority: Authority) -> None:
    with pytest.raises(ValueError, match="signs for runyard, not for spiffe://evil/agent/east/n1"):
        sign(authority, Identity(Role.AGENT, "n1", "east", "evil"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 1024),
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP192R1()),
    ],
    ids=["rsa-1024", "rsa-2048", "p-192"],
)
def test_keys_of_other_kinds_get_no_certificate(
    authority: Authority, make: Callable[[], rsa.RSAPrivateKey]
) -> None:
    with pytest.raises(UnusableKey, match="EC P-256, EC P-384 or Ed25519"):
        authority.sign(make().public_key(), AGENT, Validity.lasting(HOUR, NOW))  # type: ignore[arg-type]


# The directory


def test_directory_and_keys_are_for_their_owner_only(directory: AuthorityDirectory) -> None:
    old = os.umask(0)
    try:
        directory.issue(ADMIN, (), HOUR, directory.path / "admin")
    finally:
        os.umask(old)
    for path in directory.path.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert (directory.path / "admin" / "key.pem").exists()


def test_authority_is_the_same_when_it_is_read_again(directory: AuthorityDirectory) -> None:
    again = AuthorityDirectory(directory.path)
    assert again.signing.certificate == directory.signing.certificate
    assert again.signing.trust_domain == "runyard"


def test_second_authority_in_one_directory_is_refused(directory: AuthorityDirectory) -> None:
    before = directory.signing.name
    with pytest.raises(AuthorityError, match="holds an authority already; `runyard ca rotate` replaces it"):
        directory.init("runyard")
    assert AuthorityDirectory(directory.path).signing.name == before


def test_directory_without_an_authority_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match=f"make one with `runyard ca init {tmp_path}`"):
        _ = AuthorityDirectory(tmp_path).signing


def test_key_that_others_may_read_is_refused_with_the_remedy(directory: AuthorityDirectory) -> None:
    (key,) = (directory.path / "keys").iterdir()
    key.chmod(0o640)
    with pytest.raises(AuthorityError, match=f"others may read .* run: chmod 600 {key}"):
        _ = AuthorityDirectory(directory.path).signing


def test_directory_that_others_may_enter_is_refused_with_the_remedy(directory: AuthorityDirectory) -> None:
    directory.path.chmod(0o755)
    with pytest.raises(AuthorityError, match=f"others may read .* run: chmod 700 {directory.path}"):
        _ = AuthorityDirectory(directory.path).signing


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_damaged_key_is_refused_with_its_path(directory: AuthorityDirectory, content: bytes) -> None:
    (key,) = (directory.path / "keys").iterdir()
    key.write_bytes(content)
    with pytest.raises(AuthorityError, match=f"{key} cannot be read"):
        _ = AuthorityDirectory(directory.path).signing


def test_key_of_another_authority_is_refused(directory: AuthorityDirectory) -> None:
    (key,) = (directory.path / "keys").iterdir()
    stranger = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(
        stranger.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(AuthorityError, match="is not the key of the authority"):
        _ = AuthorityDirectory(directory.path).signing


def test_issued_files_can_be_used_and_are_listed(directory: AuthorityDirectory, tmp_path: Path) -> None:
    issued = directory.issue(COORDINATOR, ("localhost",), HOUR, tmp_path / "out")
    material = files_in(tmp_path / "out").read()
    assert directory.issuer_of(material.certificate or b"") == directory.signing.certificate
    assert AuthorityDirectory(directory.path).issued() == [issued]
    assert issued.uri == COORDINATOR.uri
    assert issued.hosts == ("localhost",)
    assert format(leaf_in(tmp_path / "out").serial_number, "x") == issued.serial


def test_certificate_is_replaced_by_one_of_the_same_holder_only(
    directory: AuthorityDirectory, tmp_path: Path
) -> None:
    directory.issue(ADMIN, (), HOUR, tmp_path / "out")
    before = (tmp_path / "out" / "key.pem").read_bytes()
    with pytest.raises(AuthorityError, match="holds the key of another identity"):
        directory.issue(Identity(Role.ADMIN, "eve"), (), HOUR, tmp_path / "out")
    assert (tmp_path / "out" / "key.pem").read_bytes() == before
    directory.issue(ADMIN, (), HOUR, tmp_path / "out")
    assert (tmp_path / "out" / "key.pem").read_bytes() != before
    files_in(tmp_path / "out").read()


def test_key_that_lies_alone_is_never_overwritten(directory: AuthorityDirectory, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("precious")
    with pytest.raises(AuthorityError, match="holds the key of another identity"):
        directory.issue(ADMIN, (), HOUR, tmp_path)
    assert (tmp_path / "key.pem").read_text() == "precious"


def test_certificate_of_another_authority_is_not_accepted_as_the_coordinators_own(
    directory: AuthorityDirectory, authority: Authority
) -> None:
    stranger = sign(authority, COORDINATOR).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(AuthorityError, match="was not signed by the authority in"):
        directory.issuer_of(stranger)


# Rotation


def test_rotation_has_a_new_authority_sign_and_both_trusted(directory: AuthorityDirectory) -> None:
    reader = AuthorityDirectory(directory.path)
    old = reader.signing.certificate
    directory.rotate()
    assert reader.signing.certificate != old
    assert reader.trusted == (reader.signing.certificate, old)
    assert [each.signs for each in reader.authorities()] == [True, False]


def test_end_of_a_rotation_moves_own_certificates_over_and_drops_the_old_authority(
    directory: AuthorityDirectory,
) -> None:
    directory.issue(COORDINATOR, ("localhost",), HOUR, directory.path / "coordinator")
    directory.issue(ADMIN, (), HOUR, directory.path / "admin")
    old = directory.signing.certificate
    directory.rotate()
    for own in ("coordinator", "admin"):
        held = x509.load_pem_x509_certificates((directory.path / own / "authority.pem").read_bytes())
        assert len(held) == 2
    assert directory.finish() == (old,)
    assert directory.trusted == (directory.signing.certificate,)
    assert len(list((directory.path / "keys").iterdir())) == 1
    for own in ("coordinator", "admin"):
        material = files_in(directory.path / own).read()
        assert directory.issuer_of(material.certificate or b"") == directory.signing.certificate
        assert material.authority.count(b"BEGIN CERTIFICATE") == 1
    renewed = leaf_in(directory.path / "coordinator")
    assert names_of(renewed).get_values_for_type(x509.DNSName) == ["localhost"]
    assert abs(renewed.not_valid_after_utc.timestamp() - time.time() - HOUR) < 120


def test_second_rotation_waits_for_the_end_of_the_first(directory: AuthorityDirectory) -> None:
    directory.rotate()
    with pytest.raises(AuthorityError, match="a rotation is in progress"):
        directory.rotate()
    directory.finish()
    with pytest.raises(AuthorityError, match="no rotation is in progress"):
        directory.finish()
    directory.rotate()


def test_rotation_that_broke_off_before_its_last_step_has_changed_nothing(
    directory: AuthorityDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = directory.signing.certificate

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AuthorityDirectory, "_trust", broken)
    with pytest.raises(OSError, match="No space"):
        directory.rotate()
    monkeypatch.undo()
    again = AuthorityDirectory(directory.path)
    assert again.trusted == (before,)
    again.rotate()
    assert len(again.trusted) == 2


# The coordinator's own certificate


@pytest.mark.parametrize(("of_its_life", "is_renewed"), [(0.5, False), (0.7, True), (1.5, True)])
def test_coordinators_own_certificate_is_renewed_when_a_third_of_its_life_is_left(
    directory: AuthorityDirectory, of_its_life: float, is_renewed: bool
) -> None:
    before = directory.issue(COORDINATOR, ("localhost",), HOUR, directory.path / "coordinator")
    directory.renew_coordinator(time.time() + of_its_life * HOUR)
    now = leaf_in(directory.path / "coordinator")
    assert (format(now.serial_number, "x") != before.serial) == is_renewed
    assert names_of(now).get_values_for_type(x509.DNSName) == ["localhost"]
    files_in(directory.path / "coordinator").read()


def test_coordinators_own_certificate_stays_with_the_old_authority_while_one_rotates(
    directory: AuthorityDirectory,
) -> None:
    before = directory.issue(COORDINATOR, ("localhost",), 90 * 24 * HOUR, directory.path / "coordinator")
    directory.rotate()
    directory.renew_coordinator(time.time() + 70 * 24 * HOUR)
    assert format(leaf_in(directory.path / "coordinator").serial_number, "x") == before.serial
    directory.renew_coordinator(time.time() + 89.5 * 24 * HOUR)
    assert format(leaf_in(directory.path / "coordinator").serial_number, "x") != before.serial


def test_authority_without_a_certificate_of_a_coordinator_has_nothing_to_renew(
    directory: AuthorityDirectory,
) -> None:
    directory.renew_coordinator(time.time())
    assert directory.issued() == []
