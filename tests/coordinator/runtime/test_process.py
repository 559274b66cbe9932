"""The coordinator as a process: killed, stopped, refused an address or directory, and without a disk."""

import asyncio
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from coordinator.ca.joining_side import coordinator_files, make_authority
from coordinator.fleet_building import make_hello, running
from coordinator.serving import RUN_ID, StubAgent, make_spec, run_id
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from harness.services import ProcessCluster, Service, open_cluster
from harness.waiting import wait_until

from runyard.client import Client, CoordinatorUnreachable
from runyard.common.transport.channel import open_aio_channel, open_channel
from runyard.v1 import agent_pb2, launch_pb2, launch_pb2_grpc, run_pb2


@pytest.fixture
def cluster() -> Iterator[ProcessCluster]:
    with open_cluster() as opened:
        yield opened


def serve(cluster: ProcessCluster, **settings: object) -> Service:
    """A coordinator that serves, and has nothing to recover."""
    coordinator = cluster.coordinator(settings={"recovery": 0, **settings})
    coordinator.wait_for_event("ready")
    return coordinator


def join(cluster: ProcessCluster, *, slots: int = 100) -> None:
    """A node has joined, and left."""

    async def once() -> None:
        async with open_aio_channel(cluster.address) as channel:
            agent = StubAgent(channel, make_hello(slots=slots))
            await agent.open()
            await agent.welcome()
            agent.vanish()

    asyncio.run(once())


def refused(
    cluster: ProcessCluster, *arguments: str, listen: str = "", state: Path | None = None
) -> tuple[int, str]:
    """The exit code and the output of a coordinator that cannot start."""
    argv = [sys.executable, "-m", "runyard.coordinator", "--listen", listen or cluster.address]
    argv += ["--state", str(state or cluster.folder / "other"), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


# Killed


def test_launch_that_was_answered_is_there_after_a_kill(cluster: ProcessCluster) -> None:
    first = serve(cluster)
    join(cluster)
    with Client(cluster.address) as client:
        client.launch_run(make_spec())
    first.kill()
    serve(cluster)
    with Client(cluster.address) as client:
        run = client.get_run(RUN_ID).run
    assert (run.phase, run.attempt) == (run_pb2.PHASE_QUEUED, 0)


def test_every_launch_that_was_answered_before_a_kill_is_there_after_it(cluster: ProcessCluster) -> None:
    first = serve(cluster)
    join(cluster)
    answered: list[str] = []
    some = threading.Event()

    def launch(number: int) -> None:
        try:
            answered.append(client.launch_run(make_spec(run_id(number)), timeout=1.0).run_id)
        except CoordinatorUnreachable:
            return
        if len(answered) == 20:
            some.set()

    with Client(cluster.address) as client, ThreadPoolExecutor(16) as pool:
        for number in range(1, 400):
            pool.submit(launch, number)
        assert some.wait(30)
        first.kill()
        pool.shutdown(cancel_futures=True)
    assert len(answered) < 399, "the kill came too late to prove anything"
    serve(cluster)
    with Client(cluster.address) as client:
        assert set(answered) <= {run.run_id for run in client.list_runs()}


def test_stop_and_tombstone_that_were_answered_are_there_after_a_kill(cluster: ProcessCluster) -> None:
    first = serve(cluster)
    join(cluster)
    with Client(cluster.address) as client:
        client.launch_run(make_spec())
        client.terminate_run(RUN_ID, reason="not needed")
        client.terminate_run(run_id(2), reason="too late")
    first.kill()
    serve(cluster)
    with Client(cluster.address) as client:
        assert client.get_run(RUN_ID).run.outcome.message == "not needed"
        assert client.launch_run(make_spec(run_id(2))).outcome.kind == run_pb2.OUTCOME_KIND_STOPPED


# Told to stop


def test_stop_sends_goodbye_to_agents_ends_watches_and_is_quick(cluster: ProcessCluster) -> None:
    coordinator = cluster.coordinator(settings={"recovery": 0, "shutdown_grace": 300})
    coordinator.wait_for_event("ready")

    async def be_there() -> tuple[agent_pb2.CoordinatorGoodbye, grpc.StatusCode]:
        async with open_aio_channel(cluster.address) as channel:
            agent = StubAgent(channel, make_hello(attempts=[running(RUN_ID)]))
            await agent.open()
            await agent.welcome()
            stub: launch_pb2_grpc.LaunchServiceAsyncStub = launch_pb2_grpc.LaunchServiceStub(channel)
            watch = stub.WatchRuns(launch_pb2.WatchRunsRequest())
            await watch.read()
            reporters = [stub.FollowReports() for _ in range(2)]
            for reporter in reporters:
                await reporter.write(launch_pb2.FollowReportsRequest(deployment="shop"))
            coordinator.wait_for_event("reporter_follows")
            coordinator.signal(signal.SIGTERM)
            goodbye = await agent.expect("goodbye")
            assert await agent.read() is None
            assert await asyncio.to_thread(coordinator.exit_code) == 0
            return goodbye, await watch.code()

    goodbye, code = asyncio.run(be_there())
    assert goodbye.reason == "the coordinator is shutting down"
    assert goodbye.redial_within.ToMilliseconds() > 0
    assert code != grpc.StatusCode.OK
    assert coordinator.events("stopped")


def test_interrupt_stops_in_order_too(cluster: ProcessCluster) -> None:
    coordinator = serve(cluster)
    coordinator.signal(signal.SIGINT)
    assert coordinator.exit_code() == 0


# What it shows of itself


def health_of(channel: grpc.Channel, service: str) -> int:
    check: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return check(health_pb2.HealthCheckRequest(service=service), timeout=10.0).status


def test_health_is_served_for_every_service_and_reflection_lists_them(cluster: ProcessCluster) -> None:
    serve(cluster, reflection=True)
    names = ("AgentService", "FleetService", "LaunchService", "SecurityService")
    ours = [f"runyard.v1.{name}" for name in names]
    with open_channel(cluster.address) as channel:
        for service in ("", *ours):
            assert health_of(channel, service) == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(ours) <= set(database.get_services())
        for service in ours:
            methods = database.FindFileContainingSymbol(service).service[0].method
            assert [method.name for method in methods]


def test_reflection_is_off_unless_it_is_asked_for(cluster: ProcessCluster) -> None:
    serve(cluster)
    with open_channel(cluster.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        with pytest.raises(grpc.RpcError) as refused:
            database.get_services()
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_secrets_of_a_launch_are_never_logged(cluster: ProcessCluster) -> None:
    coordinator = serve(cluster)
    join(cluster)
    with Client(cluster.address) as client:
        client.launch_run(make_spec(worker_args="hush-hush", environment={"TOKEN": "hush-hush"}))
        client.terminate_run(RUN_ID, reason="enough")
    coordinator.terminate()
    assert RUN_ID in coordinator.output()
    assert "hush-hush" not in coordinator.output()


# Refused a place


def test_second_coordinator_on_one_state_directory_is_refused(cluster: ProcessCluster) -> None:
    serve(cluster)
    code, said = refused(cluster, listen="127.0.0.1:0", state=cluster.folder / "coordinator")
    assert code == 1
    assert "is in use by another coordinator; stop that one first" in said
    assert "Traceback" not in said


def test_port_in_use_is_refused_with_a_remedy(cluster: ProcessCluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refused(cluster, listen=f"127.0.0.1:{port}")
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "is another coordinator running?" in said
    assert "Traceback" not in said


def test_socket_of_a_live_coordinator_is_not_taken_away(cluster: ProcessCluster) -> None:
    serve(cluster)
    code, said = refused(cluster)
    assert code == 1
    assert f"cannot listen on {cluster.address}" in said
    with Client(cluster.address) as client:
        assert list(client.list_runs()) == []


def test_file_in_place_of_the_socket_is_not_deleted(cluster: ProcessCluster) -> None:
    notes = cluster.folder / "notes"
    notes.write_text("precious")
    code, said = refused(cluster, listen=f"unix:{notes}")
    assert code == 1
    assert "is not a socket" in said
    assert notes.read_text() == "precious"


def test_socket_that_a_killed_coordinator_left_is_taken_over(cluster: ProcessCluster) -> None:
    serve(cluster).kill()
    assert (cluster.folder / "socket").is_socket()
    serve(cluster)
    with Client(cluster.address) as client:
        assert list(client.list_runs()) == []


def test_address_that_other_machines_reach_is_refused_without_certificates(cluster: ProcessCluster) -> None:
    code, said = refused(cluster, listen="0.0.0.0:0")
    assert code == 2
    assert "will not listen on 0.0.0.0:0 without certificates" in said


def test_chosen_free_port_is_in_the_log(cluster: ProcessCluster) -> None:
    coordinator = cluster.coordinator("--listen", "127.0.0.1:0")
    address = coordinator.wait_for_event("ready")["address"]
    with Client(address) as client:
        assert list(client.list_runs()) == []


# Cut off from its disk


def test_coordinator_that_can_no_longer_write_exits(cluster: ProcessCluster) -> None:
    coordinator = serve(cluster)
    join(cluster)
    with sqlite3.connect(cluster.folder / "coordinator" / "coordinator.db") as connection:
        connection.execute("DROP TABLE run_events")
    connection.close()
    with Client(cluster.address) as client, pytest.raises(CoordinatorUnreachable):
        client.launch_run(make_spec(), timeout=3.0)
    assert coordinator.exit_code() == 1
    assert coordinator.events("failed")


# Its own certificate


def test_coordinator_renews_its_own_certificate_in_time(cluster: ProcessCluster) -> None:
    authority = make_authority(cluster.folder / "ca")
    files = coordinator_files(authority)
    assert files.certificate is not None
    first = files.certificate.read_bytes()
    issued = authority.path / "issued.jsonl"
    record = json.loads(issued.read_text())
    issued.write_text(json.dumps({**record, "not_after": time.time() + 1.0}) + "\n")
    tls = {
        "authority": str(files.authority),
        "certificate": str(files.certificate),
        "key": str(files.key),
    }
    serve(cluster, tls=tls, ca_directory=str(authority.path))
    wait_until(lambda: files.certificate and files.certificate.read_bytes() != first, "it is renewed")
