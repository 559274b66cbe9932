"""Refused callers, on a real process: each is refused for the right reason, which is logged."""

import asyncio
import contextlib
import os
import re
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from coordinator.fleet_building import finished, make_hello, running
from coordinator.serving import SOON, StubAgent, make_spec, refusal
from harness.certificates import CLIENT, COORDINATOR, HOSTS, HOUR, OPERATOR, Authority, agent, tls_settings
from harness.services import Service, open_cluster
from harness.waiting import await_until, wait_until

from runyard.client import AccessDenied, Client, CoordinatorUnreachable, ResourceExhausted
from runyard.common.security.identity import Identity, Role
from runyard.common.transport.channel import open_aio_channel, open_channel
from runyard.common.transport.tls import TlsMaterial
from runyard.v1 import agent_pb2, agent_pb2_grpc, launch_pb2, launch_pb2_grpc, run_pb2


@dataclass(frozen=True)
class Fort:
    """A coordinator with certificates, as a process."""

    folder: Path
    address: str
    service: Service
    authority: Authority

    def client(self, identity: Identity = CLIENT) -> Client:
        """A client that the coordinator knows."""
        return Client(
            self.address, tls=self.authority.holder(self.folder / uuid.uuid4().hex, identity), timeout=SOON
        )

    def channel(self, material: TlsMaterial | None) -> grpc.Channel:
        """A channel with given certificates."""
        return open_channel(self.address, material)

    def logged(self, event: str, reason: str) -> list[dict[str, Any]]:
        """The events of that name whose reason matches."""
        return [each for each in self.service.events(event) if re.search(reason, str(each["reason"]))]

    def wait_logged(self, event: str, reason: str, times: int = 1) -> dict[str, Any]:
        """The last of them, as soon as there are so many."""

        def found() -> dict[str, Any] | None:
            events = self.logged(event, reason)
            return events[-1] if len(events) >= times else None

        return wait_until(found, lambda: f"no {event!r} because {reason!r} in\n{self.service.output()}", SOON)

    def wait_written(self, pattern: str) -> None:
        """Waits until the coordinator has written a line that matches, to its log or to standard error."""
        wait_until(
            lambda: re.search(pattern, self.service.output()),
            lambda: f"nothing like {pattern!r} in\n{self.service.output()}",
            SOON,
        )


@pytest.fixture(scope="module")
def fort() -> Iterator[Fort]:
    with open_cluster() as cluster:
        authority = Authority()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            cluster.address = f"127.0.0.1:{probe.getsockname()[1]}"
        tls = tls_settings(authority.coordinator(cluster.folder / "tls"))
        service = cluster.coordinator(settings={"recovery": 0, "tls": tls})
        service.wait_for_event("ready")
        yield Fort(cluster.folder, cluster.address, service, authority)


# Handshakes


AUTHORITY, ROGUE = Authority(), Authority("rogue")


def without_certificate(ours: Authority) -> TlsMaterial:
    return TlsMaterial(ours.pem)


def of_a_rogue(ours: Authority) -> TlsMaterial:
    leaf = Authority("rogue").issue(CLIENT.uri)
    return TlsMaterial(ours.pem, leaf.certificate, leaf.key)


def of_a_rogue_with_our_name(ours: Authority) -> TlsMaterial:
    leaf = Authority().issue(CLIENT.uri)
    return TlsMaterial(ours.pem, leaf.certificate, leaf.key)


def expired(ours: Authority) -> TlsMaterial:
    return ours.material(CLIENT.uri, lifetime=-HOUR)


def not_yet_valid(ours: Authority) -> TlsMaterial:
    return ours.material(CLIENT.uri, begins=HOUR, lifetime=2 * HOUR)


def of_a_server(ours: Authority) -> TlsMaterial:
    return ours.material(COORDINATOR.uri, hosts=HOSTS)


HANDSHAKES = {
    "no certificate": (without_certificate, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
    "rogue authority": (of_a_rogue, "unable to get local issuer certificate"),
    "rogue authority with our name": (of_a_rogue_with_our_name, "certificate signature failure"),
    "expired": (expired, "certificate has expired"),
    "not yet valid": (not_yet_valid, "certificate is not yet valid"),
    "a server's certificate": (of_a_server, "unsupported certificate purpose"),
    "plain text": (lambda _: None, "WRONG_VERSION_NUMBER"),
}


@pytest.mark.parametrize("case", HANDSHAKES)
def test_handshake_fails_and_grpc_writes_the_reason_to_standard_error(fort: Fort, case: str) -> None:
    make, reason = HANDSHAKES[case]
    with fort.channel(make(fort.authority)) as channel:
        stub = launch_pb2_grpc.LaunchServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListRuns(launch_pb2.ListRunsRequest(), timeout=SOON)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    fort.wait_written(f"Handshake failed .*{reason}")


def test_client_gets_the_reason_of_a_failed_handshake(fort: Fort) -> None:
    files = ROGUE.holder(fort.folder / "stranger", CLIENT)
    told = pytest.raises(CoordinatorUnreachable, match=r"of an authority that is not trusted here.*doctor")
    with Client(fort.address, tls=files) as client, told:
        client.list_nodes()


# Certificates that say too little


STRANGE = {
    "no identity": ((), {"hosts": ()}, "the certificate has no identity"),
    "two identities": ((CLIENT.uri, OPERATOR.uri), {}, "must name one identity, as a URI; it names 2"),
    "another trust domain": (
        (Identity(Role.CLIENT, "a", trust_domain="elsewhere").uri,),
        {},
        "belongs to trust domain 'elsewhere', not 'runyard'",
    ),
    "no role": (("spiffe://runyard/night/owl",), {}, "names no role"),
    "another scheme": (("https://runyard/client/a",), {}, "does not begin with spiffe://"),
    "for nothing in particular": ((CLIENT.uri,), {"uses": ()}, "has no extended key usage"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_certificate_of_our_authority_without_exactly_one_identity_is_refused(fort: Fort, case: str) -> None:
    uris, wanted, reason = STRANGE[case]
    material = fort.authority.material(*uris, **wanted)
    with fort.channel(material) as channel, pytest.raises(grpc.RpcError) as refused:
        launch_pb2_grpc.LaunchServiceStub(channel).ListRuns(launch_pb2.ListRunsRequest(), timeout=SOON)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert re.search(reason, refused.value.details() or "")
    fort.wait_logged("call_refused", reason)


# Roles


def test_client_cannot_be_an_agent_and_an_agent_no_client(fort: Fort) -> None:
    with fort.channel(fort.authority.material(CLIENT.uri)) as channel:
        stub = agent_pb2_grpc.AgentServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Session(iter([agent_pb2.SessionRequest(hello=make_hello())]), timeout=SOON))
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    fort.wait_logged("call_refused", "client/dagster may not call Session")
    with fort.client(agent("node-a")) as client:
        with pytest.raises(AccessDenied, match="may not call LaunchRun"):
            client.launch_run(make_spec(str(uuid.uuid4())))
        with pytest.raises(AccessDenied, match="may not call ListNodes"):
            client.list_nodes()
    fort.wait_logged("call_refused", "agent/default/node-a may not call LaunchRun")


def test_operator_cannot_launch_and_a_client_not_operate(fort: Fort) -> None:
    with fort.client(OPERATOR) as client, pytest.raises(AccessDenied, match="may not call LaunchRun"):
        client.launch_run(make_spec(str(uuid.uuid4())))
    with fort.client() as client, pytest.raises(AccessDenied, match="may not call FenceNode"):
        client.fence_node("node-a", reason="mine now")
    fort.wait_logged("call_refused", "may not call FenceNode")


# Agents


async def session_end(fort: Fort, identity: Identity, hello: agent_pb2.Hello) -> tuple[grpc.StatusCode, str]:
    async with open_aio_channel(fort.address, fort.authority.material(identity.uri)) as channel:
        stub = StubAgent(channel, hello)
        await stub.open()
        return await refusal(stub.read())


@pytest.mark.parametrize(
    ("identity", "hello", "reason"),
    [
        (agent("node-b"), make_hello("node-a"), "may not speak for node 'node-a'"),
        (agent("node-a", "west"), make_hello("node-a"), "may not speak for cluster 'default'"),
    ],
)
async def test_agent_acts_for_no_other_node_or_cluster(
    fort: Fort, identity: Identity, hello: agent_pb2.Hello, reason: str
) -> None:
    code, details = await session_end(fort, identity, hello)
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert reason in details
    await asyncio.to_thread(fort.wait_logged, "session_refused", reason)


@dataclass
class Pair:
    """Two nodes in session, the second of which has a run."""

    client: Client
    mine: StubAgent
    other: StubAgent
    run_id: str
    attempt: int

    async def run(self) -> run_pb2.Run:
        """The run as the coordinator sees it."""
        return (await asyncio.to_thread(self.client.get_run, self.run_id)).run


@pytest.fixture
async def pair(fort: Fort) -> AsyncIterator[Pair]:
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for node, slots in (("node-a", 0), ("node-b", 8)):
            material = fort.authority.material(agent(node).uri)
            channel = await stack.enter_async_context(open_aio_channel(fort.address, material))
            nodes.append(StubAgent(channel, make_hello(node, slots=slots)))
            stack.callback(nodes[-1].vanish)
            await nodes[-1].open()
            await nodes[-1].welcome()
        client = stack.enter_context(fort.client())
        run_id = str(uuid.uuid4())
        await asyncio.to_thread(client.launch_run, make_spec(run_id))
        assign = await nodes[1].expect("assign")
        await nodes[1].report(running(run_id, assign.attempt))
        made = Pair(client, nodes[0], nodes[1], run_id, assign.attempt)

        async def runs() -> run_pb2.Run | None:
            run = await made.run()
            return run if run.phase == run_pb2.PHASE_RUNNING else None

        seen: run_pb2.Run = await await_until(runs, "the run runs", SOON)
        assert seen.node == "node-b"
        yield made


async def test_report_on_another_nodes_run_does_not_count(pair: Pair) -> None:
    for attempt in (pair.attempt, pair.attempt + 1):
        await pair.mine.report(finished(pair.run_id, attempt))
        await pair.mine.expect("report_ack")
        run = await pair.run()
        assert (run.node, run.attempt, run.phase) == ("node-b", pair.attempt, run_pb2.PHASE_RUNNING)
    await pair.mine.report(running(pair.run_id, pair.attempt + 7))
    assert (await pair.mine.expect("stop")).attempt == pair.attempt + 7
    await pair.mine.reject(pair.run_id, pair.attempt)
    await pair.mine.send(heartbeat=agent_pb2.Heartbeat(sequence=1))
    await pair.mine.expect("heartbeat_ack")
    run = await pair.run()
    assert (run.node, run.attempt, run.phase) == ("node-b", pair.attempt, run_pb2.PHASE_RUNNING)


async def test_agent_cannot_push_the_log_that_another_node_was_asked_for(pair: Pair) -> None:
    logs = pair.client.read_logs(pair.run_id, stream=launch_pb2.LOG_STREAM_STDOUT, timeout=SOON)
    reading = asyncio.create_task(asyncio.to_thread(list, logs))
    asked = await pair.other.expect("send_logs")
    piece = partial(agent_pb2.PushLogsRequest, transfer_id=asked.transfer_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await pair.mine.push_logs(piece(data=b"forged"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    await pair.other.push_logs(piece(data=b"true"))
    assert b"".join(each.data for each in await reading) == b"true"


def test_certificate_that_expires_soon_is_accepted_and_logged_once(fort: Fort) -> None:
    soon = fort.authority.material(Identity(Role.CLIENT, "late").uri, lifetime=timedelta(minutes=5))
    with fort.channel(soon) as channel:
        stub = launch_pb2_grpc.LaunchServiceStub(channel)
        for _ in range(3):
            stub.ListRuns(launch_pb2.ListRunsRequest(), timeout=SOON)
    (warned,) = [
        each for each in fort.service.events("certificate_expires_soon") if "client/late" in each["identity"]
    ]
    assert warned["hours_left"] == 0.1
    assert "ca issue" in warned["remedy"]


async def test_session_ends_when_its_certificate_expires(fort: Fort) -> None:
    short = fort.authority.material(agent("node-c").uri, lifetime=timedelta(seconds=4), begins=-HOUR)
    async with open_aio_channel(fort.address, short) as channel:
        stub = StubAgent(channel, make_hello("node-c"))
        await stub.open()
        await stub.welcome()
        sequence = 0
        while not stub.call.done():
            sequence += 1
            await asyncio.sleep(0.2)  # heartbeats, until one of them is too late
            try:
                await stub.send(heartbeat=agent_pb2.Heartbeat(sequence=sequence))
                await stub.read()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                break
        assert await stub.call.code() == grpc.StatusCode.UNAUTHENTICATED
        assert "has expired" in (await stub.call.details() or "")
    await asyncio.to_thread(fort.wait_logged, "session_refused", "agent/default/node-c has expired")


# Too much


def test_message_that_is_too_large_is_refused_with_the_limit(fort: Fort) -> None:
    told = pytest.raises(ResourceExhausted, match=r"launch spec has \d+ bytes, more than the 4194304")
    with fort.client() as client, told:
        client.launch_run(make_spec(str(uuid.uuid4()), worker_args="x" * (5 << 20)))
    credentials = fort.authority.material(CLIENT.uri).channel_credentials()
    unbounded = [("grpc.max_send_message_length", -1)]
    with grpc.secure_channel(fort.address, credentials, options=unbounded) as channel:
        send: Any = channel.unary_unary("/runyard.v1.LaunchService/LaunchRun")
        with pytest.raises(grpc.RpcError) as refused:
            send(bytes(1 + (8 << 20)), timeout=SOON)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in (refused.value.details() or "")


def test_metadata_that_is_too_large_is_refused(fort: Fort) -> None:
    with fort.channel(fort.authority.material(CLIENT.uri)) as channel:
        stub = launch_pb2_grpc.LaunchServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListRuns(launch_pb2.ListRunsRequest(), metadata=(("x-filler", "x" * 20_000),), timeout=SOON)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_bytes_on_the_port_disturb_no_session(fort: Fort) -> None:
    async with open_aio_channel(fort.address, fort.authority.material(agent("node-d").uri)) as channel:
        stub = StubAgent(channel, make_hello("node-d"))
        await stub.open()
        await stub.welcome()
        host, port = fort.address.split(":")
        doors = [await asyncio.open_connection(host, port) for _ in range(20)]
        for number, (_, writer) in enumerate(doors):
            writer.write(b"GET / HTTP/1.1\r\n\r\n" if number % 2 else os.urandom(2_000))
        for sequence in range(1, 6):
            await stub.send(heartbeat=agent_pb2.Heartbeat(sequence=sequence))
            assert (await stub.expect("heartbeat_ack")).sequence == sequence
        for _, writer in doors:
            writer.close()
        stub.vanish()
    await asyncio.to_thread(fort.wait_written, "Handshake failed .*HTTP_REQUEST")


async def test_many_simultaneous_connections_are_all_accepted(fort: Fort) -> None:
    """Each handshake asks for the certificates of the moment, many of them at the same time."""
    material = fort.authority.material(CLIENT.uri)

    async def connect() -> None:
        async with open_aio_channel(fort.address, material) as channel:
            await channel.channel_ready()

    for _ in range(3):
        async with asyncio.timeout(60.0):
            await asyncio.gather(*(connect() for _ in range(100)))
    assert fort.service.process.poll() is None
