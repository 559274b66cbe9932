"""Files with certificates: what is refused and why, and that nothing bad ever replaces what is good."""

from pathlib import Path

import pytest
from harness.certificates import CLIENT, OPERATOR, Authority, replace

from runyard.client import InvalidTlsFiles, TlsFiles
from runyard.common.transport.tls import WatchedTls


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> TlsFiles:
    return authority.holder(tmp_path / "tls", CLIENT)


def key_of(files: TlsFiles) -> Path:
    assert files.key is not None
    return files.key


def test_files_are_read_as_they_are(files: TlsFiles, authority: Authority) -> None:
    material = files.read()
    assert material.authority == authority.pem
    assert material.key == key_of(files).read_bytes()
    assert key_of(files).read_text().splitlines()[1] not in repr(material)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o644, 0o777])
def test_key_that_others_may_read_is_refused_with_the_remedy(files: TlsFiles, mode: int) -> None:
    key = key_of(files)
    key.chmod(mode)
    with pytest.raises(InvalidTlsFiles, match=f"others may read or change {key}.*run: chmod 600 {key}"):
        files.read()


def test_missing_file_is_named(files: TlsFiles) -> None:
    key_of(files).unlink()
    with pytest.raises(InvalidTlsFiles, match=r"tls\.key: .*key\.pem cannot be read \(No such file"):
        files.read()


def test_key_of_another_certificate_is_refused(files: TlsFiles, authority: Authority) -> None:
    replace(key_of(files), authority.issue(CLIENT.uri).key)
    with pytest.raises(InvalidTlsFiles, match=r"is not the key of .*certificate\.pem"):
        files.read()


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_is_refused(files: TlsFiles, content: bytes) -> None:
    files.authority.write_bytes(content)
    with pytest.raises(InvalidTlsFiles, match=r"tls\.authority: .*authority\.pem holds no"):
        files.read()


def test_key_with_a_passphrase_is_refused(files: TlsFiles) -> None:
    key_of(files).write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    with pytest.raises(InvalidTlsFiles, match="needs a passphrase"):
        files.read()


def test_certificate_without_key_is_refused(files: TlsFiles) -> None:
    with pytest.raises(InvalidTlsFiles, match="a certificate needs its key"):
        TlsFiles(files.authority, files.certificate)


# Watching


def test_new_files_are_used_and_equal_ones_change_nothing(authority: Authority, files: TlsFiles) -> None:
    watched = WatchedTls(files)
    before = watched.current()
    replace(files.authority, authority.pem)
    assert watched.current() is before
    authority.files(files.authority.parent, authority.issue(CLIENT.uri))
    assert watched.current() == files.read() != before


def test_half_written_set_is_reported_once_and_passed_over(authority: Authority, files: TlsFiles) -> None:
    reports: list[str] = []
    watched = WatchedTls(files, reports.append)
    before = watched.current()
    coming = authority.issue(OPERATOR.uri)
    replace(key_of(files), coming.key)
    assert watched.current() is watched.current() is before
    assert len(reports) == 1
    assert "is not the key of" in reports[0]
    assert files.certificate is not None
    replace(files.certificate, coming.certificate)
    assert watched.current().certificate == coming.certificate
    assert len(reports) == 1


def test_mode_of_the_key_alone_is_noticed(files: TlsFiles) -> None:
    reports: list[str] = []
    watched = WatchedTls(files, reports.append)
    key_of(files).chmod(0o644)
    watched.current()
    assert "chmod 600" in reports[0]


def test_link_that_is_turned_brings_the_new_set(authority: Authority, tmp_path: Path) -> None:
    for name in ("one", "two"):
        authority.holder(tmp_path / name, CLIENT)
    current = tmp_path / "current"
    current.symlink_to("one")
    watched = WatchedTls(
        TlsFiles(current / "authority.pem", current / "certificate.pem", current / "key.pem")
    )
    aside = tmp_path / "aside"
    aside.symlink_to("two")
    aside.rename(current)
    assert watched.current().certificate == (tmp_path / "two" / "certificate.pem").read_bytes()
