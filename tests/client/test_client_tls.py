"""Clients with certificates, blocking and asyncio: new files are used without a call that fails."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client.tls_coordinator import tls_coordinator
from coordinator.auth.secured import Secured
from coordinator.serving import make_spec, run_id
from harness.certificates import CLIENT, Authority, replace
from harness.waiting import wait_until

from runyard.client import Client, CoordinatorUnreachable, InvalidTlsFiles, TlsFiles
from runyard.client.connection import HANDSHAKE_SECONDS
from runyard.client.health import Health
from runyard.common.security.identity import Identity, Role

OTHER = Identity(Role.CLIENT, "other")


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Secured]:
    with tls_coordinator(tmp_path) as opened:
        yield opened


@pytest.fixture
def files(coordinator: Secured, tmp_path: Path) -> TlsFiles:
    return coordinator.authority.holder(tmp_path / "mine", CLIENT)


def test_client_is_who_its_certificate_says(coordinator: Secured, files: TlsFiles) -> None:
    with Client(coordinator.address, tls=files) as client:
        assert client.check_health() is Health.SERVING
        assert client.launch_run(make_spec()).launched_by == CLIENT.uri


def test_new_certificate_is_used_for_the_next_calls(
    coordinator: Secured, files: TlsFiles, tmp_path: Path
) -> None:
    with Client(coordinator.address, tls=files) as client:
        client.launch_run(make_spec(run_id(1)))
        coordinator.authority.holder(tmp_path / "mine", OTHER)
        assert client.launch_run(make_spec(run_id(2))).launched_by == OTHER.uri


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_call_fails_while_certificates_change_again_and_again(
    coordinator: Secured, files: TlsFiles, tmp_path: Path
) -> None:
    over = threading.Event()
    calls: list[float] = []
    failures: list[Exception] = []

    def call_on() -> None:
        while not over.is_set():
            try:
                client.list_nodes()
            except Exception as error:
                failures.append(error)
            calls.append(time.monotonic())

    with Client(coordinator.address, tls=files) as client:
        threads = [threading.Thread(target=call_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            before = len(calls)
            coordinator.authority.holder(tmp_path / "mine", CLIENT)
            wait_until(lambda before=before: len(calls) > before + 20, lambda: f"{len(calls)} calls")  # type: ignore[misc]
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_calls_that_wait_for_a_connection_go_on_when_certificates_change_once_more(
    coordinator: Secured, files: TlsFiles, tmp_path: Path
) -> None:
    assert files.certificate is not None
    assert files.key is not None
    rogue = Authority("rogue").issue(CLIENT.uri)
    with Client(coordinator.address, tls=files) as client:
        client.list_nodes()
        replace(files.key, rogue.key)
        replace(files.certificate, rogue.certificate)
        began = time.monotonic()
        waiting = threading.Thread(target=client.list_nodes)
        waiting.start()
        wait_until(lambda: time.monotonic() > began + 0.5, "it waits")
        coordinator.authority.holder(tmp_path / "mine", OTHER)
        assert client.launch_run(make_spec()).launched_by == OTHER.uri
        waiting.join()
        assert time.monotonic() - began < HANDSHAKE_SECONDS


def test_stream_goes_on_over_a_change_of_certificates(
    coordinator: Secured, files: TlsFiles, tmp_path: Path
) -> None:
    with Client(coordinator.address, tls=files) as client:
        client.launch_run(make_spec(run_id(1)))
        news = client.watch_runs()
        assert next(news).run_id == run_id(1)
        for number in (2, 3):
            coordinator.authority.holder(tmp_path / "mine", CLIENT)
            client.launch_run(make_spec(run_id(number)))
            assert any(run.run_id == run_id(number) for run in news)


def test_certificate_that_the_coordinator_does_not_take_leaves_the_old_connection_in_use(
    coordinator: Secured, files: TlsFiles, tmp_path: Path
) -> None:
    rogue = Authority("rogue").issue(CLIENT.uri)
    with Client(coordinator.address, tls=files) as client:
        client.list_nodes()
        assert files.certificate is not None
        assert files.key is not None
        replace(files.key, rogue.key)
        replace(files.certificate, rogue.certificate)
        for _ in range(3):
            client.list_nodes()
        coordinator.authority.holder(tmp_path / "mine", OTHER)
        client.list_nodes()
        assert client.launch_run(make_spec()).launched_by == OTHER.uri


def test_files_that_cannot_be_used_are_refused_when_the_client_is_made(
    coordinator: Secured, files: TlsFiles
) -> None:
    assert files.key is not None
    files.key.chmod(0o644)
    with pytest.raises(InvalidTlsFiles, match="chmod 600"):
        Client(coordinator.address, tls=files)


def test_authority_of_somebody_else_is_not_trusted(coordinator: Secured, tmp_path: Path) -> None:
    files = Authority("rogue").holder(tmp_path / "stranger", CLIENT)
    with Client(coordinator.address, tls=files) as client:
        told = pytest.raises(CoordinatorUnreachable, match="of an authority that is not trusted here")
        with told:
            client.list_nodes()
