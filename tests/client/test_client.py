"""What both clients promise, against a fake coordinator (see `fake_coordinator.py`) over loopback sockets."""

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from client.fake_coordinator import STDERR, STDOUT, FakeCoordinator, make_node, make_spec
from harness.certificates import CLIENT, Authority
from harness.processes import free_port

from runyard.client import (
    AccessDenied,
    CallCancelled,
    Client,
    ClientClosed,
    CoordinatorFailed,
    CoordinatorUnreachable,
    Health,
    InsecureAddress,
    InvalidAddress,
    InvalidRequest,
    LaunchConflict,
    LaunchRefused,
    NodeNotFound,
    NotFound,
    NotSupported,
    Refused,
    ResourceExhausted,
    RunNotFound,
    RunyardError,
)
from runyard.client.requests import SNAPSHOT_PIECE_BYTES, drain_request
from runyard.v1 import fleet_pb2, run_pb2


class CountedSnapshot:
    """A snapshot that tells how often it was asked for."""

    data = b'{"job": "orders"}' * 1000

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bytes:
        self.asked += 1
        return self.data


@pytest.fixture
def free_address() -> str:
    """A loopback address where nobody listens yet."""
    return f"127.0.0.1:{free_port()}"


# Launch


def test_a_launch_gives_the_run_as_the_coordinator_has_it(client: Client) -> None:
    run = client.launch_run(make_spec("r1"))
    assert (run.run_id, run.attempt, run.phase) == ("r1", 1, run_pb2.PHASE_QUEUED)
    assert client.launch_run(make_spec("r1")) == run


def test_the_snapshot_is_sent_only_when_asked_for(coordinator: FakeCoordinator, client: Client) -> None:
    snapshot = CountedSnapshot()
    client.launch_run(make_spec("r1", snapshot_id="s1"), snapshot=snapshot)
    assert snapshot.asked == 1
    assert coordinator.snapshots == {"s1": CountedSnapshot.data}
    client.launch_run(make_spec("r2", snapshot_id="s1"), snapshot=snapshot)
    assert snapshot.asked == 1
    assert len(coordinator.requests("LaunchRun")) == 3
    assert len(coordinator.requests("StoreSnapshot")) == 1


def test_a_large_snapshot_travels_compressed_and_in_pieces(
    coordinator: FakeCoordinator, client: Client
) -> None:
    noise = hashlib.shake_128(b"seed").digest(3 * SNAPSHOT_PIECE_BYTES)
    client.launch_run(make_spec("r1", snapshot_id="s1"), snapshot=lambda: noise + bytes(len(noise)))
    assert coordinator.snapshots == {"s1": noise + bytes(len(noise))}
    assert coordinator.pieces[:3] == [SNAPSHOT_PIECE_BYTES] * 3
    assert sum(coordinator.pieces) < 1.1 * len(noise)


def test_a_snapshot_is_sent_again_while_the_coordinator_is_unavailable(
    coordinator: FakeCoordinator, client: Client
) -> None:
    coordinator.fail("StoreSnapshot", grpc.StatusCode.UNAVAILABLE, "not yet", times=2)
    snapshot = CountedSnapshot()
    client.launch_run(make_spec("r1", snapshot_id="s1"), snapshot=snapshot)
    assert coordinator.snapshots == {"s1": CountedSnapshot.data}
    assert (snapshot.asked, len(coordinator.requests("StoreSnapshot"))) == (1, 3)


def test_a_snapshot_that_is_wanted_and_not_given_is_an_invalid_request(client: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"spec\.job_snapshot_id: .*'s1'; pass `snapshot`"):
        client.launch_run(make_spec("r1", snapshot_id="s1"))


def test_an_error_of_the_snapshot_function_reaches_the_caller(client: Client) -> None:
    def broken() -> bytes:
        raise OSError("the code server left")

    with pytest.raises(OSError, match="the code server left"):
        client.launch_run(make_spec("r1", snapshot_id="s1"), snapshot=broken)


def test_another_content_under_the_same_run_id_is_a_conflict(client: Client) -> None:
    client.launch_run(make_spec("r1"))
    other = make_spec("r1")
    other.code_origin.job = "returns"
    with pytest.raises(LaunchConflict, match="r1"):
        client.launch_run(other)


def test_a_launch_is_repeated_until_the_coordinator_comes_up(free_address: str) -> None:
    late = FakeCoordinator()
    starter = threading.Timer(0.7, late.start, args=(free_address,))
    with Client(free_address, timeout=20) as client:
        starter.start()
        run = client.launch_run(make_spec("r1"))
    starter.join()
    late.stop()
    assert run.run_id == "r1"


@pytest.mark.parametrize("method", ["LaunchRun", "TerminateRun"])
def test_idempotent_calls_outlast_passing_unavailability(
    coordinator: FakeCoordinator, client: Client, method: str
) -> None:
    coordinator.fail(method, grpc.StatusCode.UNAVAILABLE, "recovering", times=3)
    if method == "LaunchRun":
        client.launch_run(make_spec("r1"))
    else:
        client.terminate_run("r1", reason="test")
    assert len(coordinator.requests(method)) == 4


def test_a_launch_that_stays_unanswered_names_address_and_cause(free_address: str) -> None:
    started = time.monotonic()
    with Client(free_address) as client, pytest.raises(CoordinatorUnreachable) as failure:
        client.launch_run(make_spec("r1"), timeout=0.8)
    assert time.monotonic() - started < 5
    assert failure.value.address == free_address
    assert str(failure.value).startswith(
        f"the coordinator at {free_address} cannot be reached: connection refused"
    )


def test_a_refusal_is_not_repeated(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.fail("LaunchRun", grpc.StatusCode.FAILED_PRECONDITION, "no node has label gpu")
    with pytest.raises(LaunchRefused, match="no node has label gpu"):
        client.launch_run(make_spec("r1"))
    assert len(coordinator.requests("LaunchRun")) == 1


# Deadlines


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.launch_run(make_spec("r1"), timeout=0.3),
        lambda client: client.terminate_run("r1", reason="test", timeout=0.3),
        lambda client: client.get_run("r1", timeout=0.3),
        lambda client: list(client.list_runs(timeout=0.3)),
        lambda client: list(client.watch_runs(timeout=0.3)),
        lambda client: list(client.read_logs("r1", stream=STDOUT, timeout=0.3)),
        lambda client: client.list_nodes(timeout=0.3),
        lambda client: client.get_node("n1", timeout=0.3),
        lambda client: client.cordon_node("n1", timeout=0.3),
        lambda client: client.uncordon_node("n1", timeout=0.3),
        lambda client: client.drain_node("n1", timeout=0.3),
        lambda client: client.fence_node("n1", reason="test", timeout=0.3),
        lambda client: client.list_clusters(timeout=0.3),
        lambda client: client.refresh_warm_servers("n1", timeout=0.3),
    ],
    ids=[
        *("launch", "terminate", "get", "list", "watch", "logs", "nodes", "node"),
        *("cordon", "uncordon", "drain", "fence", "clusters", "refresh"),
    ],
)
def test_a_coordinator_that_does_not_answer_ends_every_call_at_its_deadline(
    coordinator: FakeCoordinator, client: Client, call: Callable[[Client], object]
) -> None:
    coordinator.stalled.set()
    started = time.monotonic()
    with pytest.raises(CoordinatorUnreachable, match="deadline exceeded"):
        call(client)
    assert 0.25 < time.monotonic() - started < 5
    coordinator.stalled.clear()


def test_the_clients_own_timeout_holds_when_the_call_names_none(coordinator: FakeCoordinator) -> None:
    coordinator.stalled.set()
    with Client(coordinator.address, timeout=0.3) as client, pytest.raises(CoordinatorUnreachable):
        client.get_run("r1")
    coordinator.stalled.clear()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused(client: Client, timeout: float) -> None:
    with pytest.raises(ValueError, match=r"timeout: .* is not above zero"):
        client.get_run("r1", timeout=timeout)


# What statuses mean


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, CoordinatorUnreachable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, CoordinatorUnreachable),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.OUT_OF_RANGE, InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, RunNotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, Refused),
        (grpc.StatusCode.ABORTED, Refused),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.UNAUTHENTICATED, AccessDenied),
        (grpc.StatusCode.PERMISSION_DENIED, AccessDenied),
        (grpc.StatusCode.UNIMPLEMENTED, NotSupported),
        (grpc.StatusCode.CANCELLED, CallCancelled),
        (grpc.StatusCode.UNKNOWN, CoordinatorFailed),
        (grpc.StatusCode.INTERNAL, CoordinatorFailed),
        (grpc.StatusCode.DATA_LOSS, CoordinatorFailed),
    ],
)
def test_every_status_has_an_exception_with_the_coordinators_words(
    coordinator: FakeCoordinator, client: Client, code: grpc.StatusCode, error: type[RunyardError]
) -> None:
    coordinator.fail("GetRun", code, "because of the test")
    with pytest.raises(error, match="because of the test") as failure:
        client.get_run("r1")
    assert type(failure.value) is error
    assert isinstance(failure.value.__cause__, grpc.RpcError)


def test_what_is_not_there_is_named_by_what_was_asked_for(client: Client) -> None:
    with pytest.raises(RunNotFound):
        client.get_run("r1")
    with pytest.raises(RunNotFound):
        list(client.read_logs("r1", stream=STDERR))
    for call in (client.get_node, client.cordon_node, client.uncordon_node, client.drain_node):
        with pytest.raises(NodeNotFound):
            call("n1")
    with pytest.raises(NodeNotFound):
        client.fence_node("n1", reason="test")


# Stopping


def test_stopping_an_unknown_run_leaves_a_tombstone(client: Client) -> None:
    assert not client.terminate_run("r1", reason="test").stopping
    assert client.launch_run(make_spec("r1")).outcome.kind == run_pb2.OUTCOME_KIND_STOPPED


# Fleet and health


def test_nodes_and_clusters_are_listed(coordinator: FakeCoordinator, client: Client) -> None:
    silent = fleet_pb2.NODE_STATE_UNREACHABLE
    coordinator.nodes = [
        make_node("n1", slots=4, used=1),
        make_node("n2", state=silent, slots=4),
        make_node("n3", "west", slots=8),
    ]
    assert [node.node_id for node in client.list_nodes()] == ["n1", "n2", "n3"]
    assert [node.node_id for node in client.list_nodes("west")] == ["n3"]
    assert client.get_node("n2").state == silent
    east, west = client.list_clusters()
    assert east == fleet_pb2.Cluster(
        name="east", nodes=2, nodes_ready=1, resources={"slots": 4}, allocated={"slots": 1}
    )
    assert west.nodes_ready == 1


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (b"\x08\x01", Health.SERVING),
        (b"\x08\x02", Health.NOT_SERVING),
        (b"", Health.UNKNOWN),
        (b"\x08\x2a", Health.UNKNOWN),
        (b"something else", Health.UNKNOWN),
    ],
)
def test_health_is_what_the_coordinator_says(
    coordinator: FakeCoordinator, client: Client, answer: bytes, health: Health
) -> None:
    coordinator.health = answer
    assert client.check_health() == health


# The connection


def test_a_far_address_needs_certificates(tmp_path: Path) -> None:
    with pytest.raises(InsecureAddress, match=r"will not dial 10\.0\.0\.1:7171 without certificates"):
        Client("10.0.0.1:7171")
    with Client("10.0.0.1:7171", tls=Authority().holder(tmp_path / "tls", CLIENT)) as client:
        assert client is not None
    with pytest.raises(InvalidAddress):
        Client("http://127.0.0.1:7171")


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    fake = FakeCoordinator().start(f"unix:{tmp_path}/socket")
    with Client(fake.address) as client:
        assert client.launch_run(make_spec("r1")).run_id == "r1"
    fake.stop()


def test_a_proxy_of_the_environment_does_not_come_between_local_ends(
    coordinator: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(coordinator.address) as client:
        assert client.check_health() == Health.SERVING


def test_a_client_finds_a_coordinator_that_was_restarted(free_address: str) -> None:
    first = FakeCoordinator().start(free_address)
    with Client(free_address, timeout=20) as client:
        client.launch_run(make_spec("r1"))
        first.stop()
        second = FakeCoordinator().start(free_address)
        client.launch_run(make_spec("r1"))
    second.stop()
    assert len(second.requests("LaunchRun")) == 1


def test_a_closed_client_says_so(coordinator: FakeCoordinator) -> None:
    with Client(coordinator.address) as client:
        client.check_health()
        client.close()
        with pytest.raises(ClientClosed):
            client.check_health()


def test_a_node_is_cordoned_drained_and_given_back(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.nodes = [fleet_pb2.Node(node_id="n1", state=fleet_pb2.NODE_STATE_READY)]

    def service(node: fleet_pb2.Node) -> tuple[bool, bool]:
        return node.cordoned, node.draining

    assert service(client.cordon_node("n1")) == (True, False)
    assert service(client.drain_node("n1")) == (True, True)
    assert service(client.drain_node("n1", deadline=90.5)) == (True, True)
    assert service(client.uncordon_node("n1")) == (False, False)
    endless, bounded = coordinator.requests("DrainNode")
    assert not endless.HasField("deadline")
    assert bounded == drain_request("n1", 90.5)


def test_only_a_node_that_is_silent_can_be_fenced(coordinator: FakeCoordinator, client: Client) -> None:
    node = make_node("n1", used=2)
    coordinator.nodes = [node]
    with pytest.raises(Refused, match="n1 is in session"):
        client.fence_node("n1", reason="it looked dead")
    node.state = fleet_pb2.NODE_STATE_UNREACHABLE
    assert client.fence_node("n1", reason="its plug is out").runs_ended == 2


def test_warm_servers_are_made_anew_by_name_or_all(coordinator: FakeCoordinator, client: Client) -> None:
    servers = [fleet_pb2.WarmServer(name=name) for name in ("one", "two")]
    coordinator.nodes = [make_node("n1", warm_servers=servers)]
    assert list(client.get_node("n1").warm_servers) == servers
    assert (client.refresh_warm_servers("n1"), client.refresh_warm_servers("n1", "two")) == (2, 1)
    assert coordinator.requests("RefreshWarmServers") == [
        fleet_pb2.RefreshWarmServersRequest(node_id="n1"),
        fleet_pb2.RefreshWarmServersRequest(node_id="n1", name="two"),
    ]
    with pytest.raises(NotFound, match="no warm server three"):
        client.refresh_warm_servers("n1", "three")
    coordinator.nodes[0].state = fleet_pb2.NODE_STATE_SUSPECT
    with pytest.raises(Refused, match="not in session"):
        client.refresh_warm_servers("n1")
