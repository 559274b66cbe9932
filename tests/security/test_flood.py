"""Whoever asks too often is told to wait; others do not notice, and the disk does not fill."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest
from coordinator.serving import make_spec
from harness.certificates import CLIENT, files_in, tls_settings
from harness.processes import free_port
from harness.services import ProcessCluster, Service, open_cluster
from harness.waiting import await_until

from runyard.client.requests import snapshot_messages
from runyard.common.security.identity import DEFAULT_TRUST_DOMAIN, Identity, Role
from runyard.common.transport.channel import open_aio_channel, open_channel
from runyard.common.transport.tls import TlsMaterial
from runyard.coordinator.ca.authority_directory import AuthorityDirectory
from runyard.coordinator.grpc.snapshot_uploads import MAX_PIECE, MAX_SNAPSHOT
from runyard.v1 import launch_pb2, launch_pb2_grpc, security_pb2, security_pb2_grpc

if TYPE_CHECKING:  # this name exists in the type stubs only
    from runyard.v1.launch_pb2_grpc import LaunchServiceAsyncStub as Launching

BURST = 20
SLOWLY = {"per_second": 0.01, "burst": BURST}
"""So slowly that within a test nothing comes back."""

AT_A_TIME = 40
"""Calls of one client that go on at the same time."""

SOON = 30.0


class Door:
    """A coordinator that lets nobody ask often."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.folder = cluster.folder
        self._authority = AuthorityDirectory(cluster.folder / "ca")
        self._authority.init(DEFAULT_TRUST_DOMAIN)
        self.issue(Identity(Role.COORDINATOR, "main"), "localhost", "127.0.0.1")
        cluster.address, self.join_address = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.address = cluster.address
        self.service: Service = cluster.coordinator(
            settings={
                "tls": tls_settings(files_in(self.folder / "main")),
                "ca_directory": str(self._authority.path),
                "join_listen": self.join_address,
                "rates": {"launch": SLOWLY, "join": SLOWLY, "failed_authentication": SLOWLY},
            }
        )
        self.service.wait_for_event("ready")

    def issue(self, identity: Identity, *hosts: str) -> TlsMaterial:
        folder = self.folder / identity.name
        self._authority.issue(identity, hosts, 3600.0, folder)
        return files_in(folder).read()

    def audited(self) -> int:
        """How many lines the audit log has."""
        return len((self.folder / "coordinator" / "audit.jsonl").read_text().splitlines())


@pytest.fixture
def door() -> Iterator[Door]:
    with open_cluster() as cluster:
        yield Door(cluster)


def answers(call: Callable[[], object], times: int) -> list[tuple[grpc.StatusCode, str]]:
    """How each call was answered."""
    found = []
    for _ in range(times):
        try:
            call()
            found.append((grpc.StatusCode.OK, ""))
        except grpc.RpcError as error:
            found.append((error.code(), error.details() or ""))
    return found


def assert_held_back(told: list[tuple[grpc.StatusCode, str]], limit: str) -> None:
    assert all(code is not grpc.StatusCode.RESOURCE_EXHAUSTED for code, _ in told[:BURST])
    for code, details in told[BURST:]:
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details.startswith(f"too many calls: rates.{limit} allows")
        assert "try again in" in details


def launching(channel: grpc.Channel) -> Callable[[], object]:
    stub = launch_pb2_grpc.LaunchServiceStub(channel)

    def launch() -> object:
        spec = make_spec(str(uuid.uuid4()))
        return stub.LaunchRun(launch_pb2.LaunchRunRequest(spec=spec), timeout=SOON)

    return launch


def test_a_flood_of_launches_holds_back_its_launcher_and_nobody_else(door: Door) -> None:
    with open_channel(door.address, door.issue(CLIENT)) as channel:
        told = answers(launching(channel), 3 * BURST)
    # There is no node here, which is another matter.
    assert [code for code, _ in told[:BURST]] == [grpc.StatusCode.FAILED_PRECONDITION] * BURST
    assert_held_back(told, "launch")
    other = door.issue(Identity(Role.CLIENT, "another"))
    with open_channel(door.address, other) as channel:
        assert answers(launching(channel), 1)[0][0] is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_flood_of_snapshots_occupies_the_memory_of_one_and_holds_up_nobody_else(door: Door) -> None:
    pieces = [launch_pb2.StoreSnapshotRequest(piece=bytes(MAX_PIECE))] * (MAX_SNAPSHOT // MAX_PIECE)
    header, *honest = snapshot_messages("snapshot-1", b"{}")
    coordinator = psutil.Process(door.service.process.pid)
    before = coordinator.memory_info().rss

    async def send_for_ever(stub: "Launching") -> None:
        call = stub.StoreSnapshot()
        for message in (header, *pieces):
            await call.write(message)
        sent_whole.append(call)
        await call  # which says nothing more

    sent_whole: list[object] = []
    async with open_aio_channel(door.address, door.issue(CLIENT)) as channel:
        stub: Launching = launch_pb2_grpc.LaunchServiceStub(channel)
        flood = [asyncio.create_task(send_for_ever(stub)) for _ in range(AT_A_TIME)]
        await await_until(lambda: sent_whole, "none gets through")
        another = door.issue(Identity(Role.CLIENT, "another"))
        async with open_aio_channel(door.address, another) as other:
            honest_stub = launch_pb2_grpc.LaunchServiceStub(other)
            await honest_stub.StoreSnapshot(iter((header, *honest)), timeout=SOON)
        assert len(sent_whole) < AT_A_TIME / 2
        assert coordinator.memory_info().rss - before < 4 * MAX_SNAPSHOT
        for each in flood:
            each.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


def test_a_flood_of_denied_calls_fills_neither_log_nor_audit(door: Door) -> None:
    nosy = door.issue(Identity(Role.AGENT, "nosy", "east"))
    before = door.audited()
    with open_channel(door.address, nosy) as channel:
        told = answers(launching(channel), 10 * BURST)
    assert [code for code, _ in told[:BURST]] == [grpc.StatusCode.PERMISSION_DENIED] * BURST
    assert_held_back(told, "failed_authentication")
    assert door.audited() - before <= BURST
    assert len(door.service.events("call_refused")) <= BURST


def test_a_flood_of_guessed_tokens_is_held_back(door: Door) -> None:
    authority = TlsMaterial((door.folder / "ca" / "authority.pem").read_bytes())
    request = security_pb2.JoinRequest(token=f"ryj1.0123456789ab.{'A' * 43}", csr_pem="x", node_id="a")
    with open_channel(door.join_address, authority) as channel:
        stub = security_pb2_grpc.JoinServiceStub(channel)
        told = answers(lambda: stub.Join(request, timeout=SOON), 3 * BURST)
    assert_held_back(told, "join")
    assert all(code is not grpc.StatusCode.OK for code, _ in told)
