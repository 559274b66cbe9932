"""`runyard doctor` on certificates: what can be wrong is told in words, with what to do about it."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from client.fake_coordinator import FakeCoordinator
from client.tls_coordinator import tls_coordinator
from coordinator.auth.secured import Secured
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness.certificates import CLIENT, COORDINATOR, HOSTS, HOUR, OPERATOR, Authority, replace, tls_settings
from harness.waiting import wait_until

from runyard.cli.main import main
from runyard.client import Client, CoordinatorUnreachable, TlsFiles

Diagnosis = tuple[int, str]
Doctor = Callable[[str, TlsFiles | None], Diagnosis]


@pytest.fixture
def doctor(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    def run(address: str, files: TlsFiles | None) -> Diagnosis:
        options = [f"--tls-{part}={path}" for part, path in tls_settings(files).items()] if files else []
        capfd.readouterr()
        code = main(["--address", address, *options, "doctor"])
        return code, capfd.readouterr().out

    return run


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with tls_coordinator(tmp_path_factory.mktemp("doctor")) as opened:
        yield opened


def test_good_certificates_are_fine(coordinator: Secured, doctor: Doctor, tmp_path: Path) -> None:
    code, out = doctor(coordinator.address, coordinator.authority.holder(tmp_path, OPERATOR))
    assert code == 0, out
    assert re.search(r"^ok +our certificate: \S+/operator/ops, for another (59|60) min", out, re.M)
    assert "certificates: each side takes the other's" in out
    assert "serving at" in out


def test_certificate_that_expires_soon_works_and_is_warned_of(
    coordinator: Secured, doctor: Doctor, tmp_path: Path
) -> None:
    soon = coordinator.authority.issue(OPERATOR.uri, lifetime=timedelta(minutes=5))
    code, out = doctor(coordinator.address, coordinator.authority.files(tmp_path, soon))
    assert code == 0, out
    assert re.search(r"^warning +our certificate: \S+/operator/ops expires in [45] min", out, re.M)


def leaf(ours: Authority, folder: Path, **wanted: object) -> TlsFiles:
    return ours.files(folder, ours.issue(CLIENT.uri, **wanted))  # type: ignore[arg-type]


OURS: dict[str, tuple[Callable[[Authority, Path], TlsFiles], str, str]] = {
    "expired": (
        lambda ours, folder: leaf(ours, folder, lifetime=-2 * HOUR),
        "our certificate: spiffe://runyard/client/dagster has expired 2 h ago",
        "Issue a new one",
    ),
    "not yet valid": (
        lambda ours, folder: leaf(ours, folder, begins=3 * HOUR, lifetime=5 * HOUR),
        "is not valid yet, for another 3 h: this machine's clock is behind",
        "Compare `date -u` on both machines",
    ),
    "of an agent": (
        lambda ours, folder: ours.agent(folder, "node-a"),
        "our certificate: belongs to the agent spiffe://runyard/agent/default/node-a",
        "need a client's, an operator's or an admin's",
    ),
    "of a server": (
        lambda ours, folder: ours.files(folder, ours.issue(COORDINATOR.uri, hosts=HOSTS)),
        "our certificate: belongs to the coordinator",
        "need a client's, an operator's or an admin's",
    ),
    "of nobody": (
        lambda ours, folder: ours.files(folder, ours.issue()),
        "our certificate: has no identity",
        "runyard ca issue",
    ),
    "rogue": (
        lambda ours, folder: ours.files(folder, Authority("rogue").issue(CLIENT.uri)),
        "our certificate: spiffe://runyard/client/dagster is not of the authority that is trusted here",
        "the coordinator refuses our certificate: it hung up",
    ),
    "wrong authority": (
        lambda _, folder: Authority("rogue").holder(folder, CLIENT),
        "the coordinator's certificate is of an authority that is not trusted here",
        "Name by --tls-authority what the coordinator's own `tls.authority` holds",
    ),
}


@pytest.mark.parametrize("case", OURS)
def test_what_is_wrong_with_our_certificate_is_told(
    coordinator: Secured, doctor: Doctor, tmp_path: Path, case: str
) -> None:
    make, text, remedy = OURS[case]
    code, out = doctor(coordinator.address, make(coordinator.authority, tmp_path / "tls"))
    assert code == 1
    assert text in out
    assert remedy in out


def test_key_that_others_may_read_is_told(coordinator: Secured, doctor: Doctor, tmp_path: Path) -> None:
    files = coordinator.authority.holder(tmp_path, CLIENT)
    assert files.key is not None
    files.key.chmod(0o644)
    code, out = doctor(coordinator.address, files)
    assert code == 1
    assert f"run: chmod 600 {files.key}" in out


def test_key_that_is_not_there_is_told(coordinator: Secured, doctor: Doctor, tmp_path: Path) -> None:
    files = coordinator.authority.holder(tmp_path, CLIENT)
    assert files.key is not None
    files.key.unlink()
    code, out = doctor(coordinator.address, files)
    assert code == 1
    assert f"tls.key: {files.key} cannot be read (No such file or directory)" in out


THEIRS: dict[str, tuple[dict[str, object], str]] = {
    "expired": ({"lifetime": -HOUR}, "has expired, or this machine's clock is ahead"),
    "not yet valid": (
        {"begins": HOUR, "lifetime": timedelta(hours=3)},
        "is not valid yet: its clock is ahead",
    ),
    "wrong name": (
        {"hosts": ("elsewhere.example",)},
        "the coordinator's certificate is not for this name or address",
    ),
    "of a client": (
        {"uses": (ExtendedKeyUsageOID.CLIENT_AUTH,)},
        "is not for servers: it belongs to another role",
    ),
}


@pytest.mark.parametrize("case", THEIRS)
def test_what_is_wrong_with_the_coordinators_certificate_is_told(
    doctor: Doctor, tmp_path: Path, case: str
) -> None:
    wanted, text = THEIRS[case]
    wanted = {"hosts": HOSTS, **wanted}
    with tls_coordinator(tmp_path) as coordinator:
        ours = coordinator.authority
        coming = ours.issue(COORDINATOR.uri, **wanted)  # type: ignore[arg-type]
        replace(tmp_path / "tls" / "key.pem", coming.key)
        replace(tmp_path / "tls" / "certificate.pem", coming.certificate)
        code, out = doctor(coordinator.address, ours.holder(tmp_path / "mine", CLIENT))
        assert code == 1
        assert text in out


def test_plain_text_where_tls_is_spoken_is_told(coordinator: Secured, doctor: Doctor) -> None:
    code, out = doctor(coordinator.address, None)
    assert code == 1
    assert f"{coordinator.address} speaks TLS, and no certificates were given for it" in out
    assert "set RUNYARD_TLS_AUTHORITY" in out


def test_tls_where_plain_text_is_spoken_is_told(doctor: Doctor, tmp_path: Path) -> None:
    fake = FakeCoordinator().start()
    try:
        code, out = doctor(fake.address, Authority().holder(tmp_path, CLIENT))
        assert code == 1
        assert f"{fake.address}: the coordinator speaks plain text, and certificates were given for it" in out
        told = pytest.raises(CoordinatorUnreachable, match="the coordinator speaks plain text")
        with Client(fake.address, tls=Authority().holder(tmp_path, CLIENT)) as client, told:
            client.list_nodes()
    finally:
        fake.stop()


def test_somebody_who_says_nothing_does_not_hold_the_doctor_up(doctor: Doctor, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        asking = threading.Thread(target=doctor, args=(address, Authority().holder(tmp_path, CLIENT)))
        asking.start()
        wait_until(lambda: not asking.is_alive(), "the doctor waits", timeout=30.0)
