"""A real coordinator on the test's event loop, and scripted agents over real gRPC."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from coordinator.fleet_building import make_hello
from harness.waiting import await_until

from runyard.client.requests import snapshot_messages
from runyard.common.transport.channel import open_aio_channel, open_channel
from runyard.coordinator.audit.audit import UNAUDITED, Audit
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.core.events.on_tick import Retention
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.security import open_security
from runyard.coordinator.services import make_server
from runyard.coordinator.store.store import Store
from runyard.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    launch_pb2,
    launch_pb2_grpc,
    run_pb2,
)

SOON = 30.0
"""Seconds within which everything in these tests happens, or never does."""

RUN_ID = "00000000-0000-4000-8000-000000000001"

NO_RECOVERY = LeaseSettings(recovery=0.0)
"""A coordinator that takes an unknown run for one that never was."""


def run_id(number: int) -> str:
    """The ID of the run with that number."""
    return f"00000000-0000-4000-8000-{number:012}"


def make_spec(run: str = RUN_ID, **fields: Any) -> run_pb2.LaunchSpec:
    """A launch spec that is in order, but for the given fields."""
    spec = run_pb2.LaunchSpec(
        run_id=run,
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        worker_args='{"secret": 1}',
        deployment="shop",
        code_origin=run_pb2.CodeOrigin(location="shop.py", job="orders"),
    )
    spec.MergeFrom(run_pb2.LaunchSpec(**fields))
    return spec


class Serving:
    """A coordinator on this event loop, and stubs to call it."""

    def __init__(self, runtime: Runtime, address: str, channel: grpc.aio.Channel | None = None) -> None:
        self.runtime = runtime
        self.address = address
        self.channel = channel or open_aio_channel(address)
        self.launch: launch_pb2_grpc.LaunchServiceAsyncStub = launch_pb2_grpc.LaunchServiceStub(self.channel)
        self.fleet: fleet_pb2_grpc.FleetServiceAsyncStub = fleet_pb2_grpc.FleetServiceStub(self.channel)
        self.agents: list[StubAgent] = []

    async def join(self, hello: agent_pb2.Hello | None = None) -> "StubAgent":
        """An agent that is in session."""
        agent = await self.knock(hello)
        await agent.welcome()
        return agent

    async def knock(self, hello: agent_pb2.Hello | None = None) -> "StubAgent":
        """An agent that has said Hello."""
        agent = StubAgent(self.channel, hello or make_hello(slots=8))
        self.agents.append(agent)
        await agent.open()
        return agent

    async def launched(self, spec: run_pb2.LaunchSpec | None = None) -> run_pb2.Run:
        """The run after its launch."""
        response = await self.launch.LaunchRun(
            launch_pb2.LaunchRunRequest(spec=spec or make_spec()), timeout=SOON
        )
        return response.run

    async def terminated(self, run: str = RUN_ID, reason: str = "") -> launch_pb2.TerminateRunResponse:
        """The answer to TerminateRun."""
        request = launch_pb2.TerminateRunRequest(run_id=run, reason=reason)
        return await self.launch.TerminateRun(request, timeout=SOON)

    async def store_snapshot(self, snapshot_id: str, plain: bytes) -> None:
        """Stores a job snapshot, as clients do."""
        await self.send_snapshot(snapshot_messages(snapshot_id, plain))

    async def send_snapshot(self, messages: Iterable[launch_pb2.StoreSnapshotRequest]) -> None:
        """Sends these messages to StoreSnapshot.

        Blocking, in a thread: gRPC's asyncio client forgets why a call was refused if it was sending then.
        """

        def send() -> None:
            with open_channel(self.address) as channel:
                launch_pb2_grpc.LaunchServiceStub(channel).StoreSnapshot(iter(messages), timeout=SOON)

        await asyncio.to_thread(send)

    async def get(self, run: str = RUN_ID) -> launch_pb2.GetRunResponse:
        """The answer to GetRun."""
        return await self.launch.GetRun(launch_pb2.GetRunRequest(run_id=run), timeout=SOON)

    async def until_phase(self, phase: run_pb2.Phase.ValueType, run: str = RUN_ID) -> run_pb2.Run:
        """The run, as soon as it is in that phase."""

        async def reached() -> run_pb2.Run | None:
            found = (await self.get(run)).run
            return found if found.phase == phase else None

        return await await_until(reached, f"run {run} in phase {run_pb2.Phase.Name(phase)}", SOON)

    async def until_node(
        self, state: fleet_pb2.NodeState.ValueType, node_id: str = "node-a"
    ) -> fleet_pb2.Node:
        """The node, as soon as it is in that state."""

        async def reached() -> fleet_pb2.Node | None:
            request = fleet_pb2.GetNodeRequest(node_id=node_id)
            node = (await self.fleet.GetNode(request, timeout=SOON)).node
            return node if node.state == state else None

        return await await_until(reached, f"node {node_id} in state {fleet_pb2.NodeState.Name(state)}", SOON)

    async def close(self) -> None:
        """Ends the agents' sessions and the calls."""
        for agent in self.agents:
            agent.vanish()
        await self.channel.close()


@contextlib.asynccontextmanager
async def serving(
    state: Path,
    *,
    leases: LeaseSettings = NO_RECOVERY,
    open_store: Callable[[Path], Store] = Store,
    audit: Audit = UNAUDITED,
) -> AsyncIterator[Serving]:
    """A coordinator with that state directory, which it gives back at the end."""
    sockets = Path(tempfile.mkdtemp(prefix="ry-"))  # pytest's own folders are too long for a socket
    store = open_store(state)
    runtime = Runtime(store, leases, Retention())
    server, _ = make_server(runtime, open_security(CoordinatorSettings(), runtime, audit))
    address = f"unix:{sockets / 'socket'}"
    server.add_insecure_port(address)
    runtime.start()
    await server.start()
    client = Serving(runtime, address)
    try:
        yield client
    finally:
        await client.close()
        await server.stop(0)
        await asyncio.wait_for(runtime.stop(), SOON)
        store.close()
        shutil.rmtree(sockets)


class StubAgent:
    """One session of an agent that does nothing by itself."""

    def __init__(self, channel: grpc.aio.Channel, hello: agent_pb2.Hello) -> None:
        self.hello = hello
        self._stub: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(channel)
        self.call = self._stub.Session()

    async def open(self) -> None:
        """Says Hello."""
        await self.send(hello=self.hello)

    async def send(self, **message: Any) -> None:
        """Sends one message of the session."""
        await self.call.write(agent_pb2.SessionRequest(**message))

    async def welcome(self) -> agent_pb2.Welcome:
        """The Welcome, which must be the first answer."""
        response = await self.read()
        assert response is not None, f"no Welcome: {await self.call.details()}"
        assert response.HasField("welcome"), response
        return response.welcome

    async def report(self, status: agent_pb2.AttemptStatus) -> None:
        """Tells of one attempt."""
        await self.send(report=agent_pb2.AttemptReport(status=status))

    async def reject(self, run: str, attempt: int = 0, reason: str = "no room") -> None:
        """Refuses an assignment."""
        rejection = agent_pb2.Rejection(run_id=run, attempt=attempt, reason=reason)
        await self.send(report=agent_pb2.AttemptReport(rejection=rejection))

    async def read(self) -> agent_pb2.SessionResponse | None:
        """The next message; None at the end of the session."""
        response = await asyncio.wait_for(self.call.read(), SOON)
        return response if isinstance(response, agent_pb2.SessionResponse) else None

    async def expect(self, name: str) -> Any:
        """The content of the next message, which must be of that name."""
        response = await self.read()
        assert response is not None, f"the session ended: {await self.call.details()}"
        assert response.WhichOneof("message") == name, response
        return getattr(response, name)

    async def push_logs(self, *pieces: agent_pb2.PushLogsRequest) -> None:
        """Sends a log, as SendLogs asked for."""

        async def stream() -> AsyncIterator[agent_pb2.PushLogsRequest]:
            for piece in pieces:
                yield piece

        await self._stub.PushLogs(stream(), timeout=SOON)

    def vanish(self) -> None:
        """Breaks the session off without a Goodbye."""
        self.call.cancel()


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """The status and the text with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    refused: Any = caught.value
    return refused.code(), refused.details() or ""
