"""How a fleet comes back after `kill -9` of the coordinator: how soon all agents, and do launches go on.

    make bench NAME=reconnect
    make bench NAME=reconnect BENCH_ARGS='--agents 100'

The coordinator is real; the agents are real sessions, many in one process, without workers.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from harness.local_cluster import LocalCluster
from harness.processes import Processes
from rich.console import Console
from rich.table import Table

from runyard.client import Client
from runyard.common.transport.channel import CHANNEL_OPTIONS
from runyard.v1 import agent_pb2, agent_pb2_grpc, placement_pb2, run_pb2

AGENTS = 500
PAUSE = 1.0
"""Seconds over which an agent spreads its next try, as the real ones do after a session."""


@dataclass
class Fleet:
    """The agents' side: which of them are in session, and since when."""

    address: str
    size: int
    welcomed_at: dict[int, float] = field(default_factory=dict)
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    async def agent(self, number: int) -> None:
        """One session after the other, for ever."""
        while True:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._session(number)
            self.welcomed_at.pop(number, None)
            self.complete.clear()
            await asyncio.sleep(random.uniform(0, PAUSE))

    async def _session(self, number: int) -> None:
        # A connection of its own for each agent, as from different machines.
        options = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            call = agent_pb2_grpc.AgentServiceStub(channel).Session()
            await call.write(agent_pb2.SessionRequest(hello=_hello(number)))
            sequence = 0
            while isinstance(response := await call.read(), agent_pb2.SessionResponse):
                if response.HasField("welcome"):
                    self.welcomed_at[number] = time.monotonic()
                    if len(self.welcomed_at) == self.size:
                        self.complete.set()
                    sequence += 1
                    beat = agent_pb2.Heartbeat(sequence=sequence)
                    await call.write(agent_pb2.SessionRequest(heartbeat=beat))


def _hello(number: int) -> agent_pb2.Hello:
    return agent_pb2.Hello(
        node_id=f"node-{number}",
        cluster="bench",
        installation_id=f"installation-{number}",
        instance_id="bench",
        boot_id="bench",
        protocol_min=1,
        protocol_max=1,
        offer=placement_pb2.Offer(drivers=["process"], resources={"slots": 1_000}),
    )


def launch_until(stop: threading.Event, address: str, answered: list[float]) -> None:
    """Launch one run after the other; append to `answered` how many seconds each call took."""
    with Client(address) as client:
        while not stop.is_set():
            began = time.monotonic()
            client.launch_run(_spec(), timeout=60.0)
            answered.append(time.monotonic() - began)


def _spec() -> run_pb2.LaunchSpec:
    return run_pb2.LaunchSpec(
        run_id=str(uuid.uuid4()),
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        worker_args="{}",
        deployment="bench",
    )


async def measure(agents: int, folder: Path) -> dict[str, float]:
    """Brings a fleet into session, kills the coordinator, starts it again, and watches."""
    processes = Processes(folder)
    cluster = LocalCluster(processes, folder)
    cluster.start_coordinator()
    fleet = Fleet(cluster.address, agents)
    tasks = [asyncio.create_task(fleet.agent(number)) for number in range(agents)]
    try:
        await fleet.complete.wait()
        before = await launches_during(cluster.address, asyncio.sleep(3.0))
        await asyncio.to_thread(processes.kill, cluster.coordinator)
        killed = time.monotonic()
        fleet.welcomed_at.clear()
        fleet.complete.clear()
        await asyncio.to_thread(cluster.start_coordinator)
        ready = time.monotonic()
        during = await launches_during(cluster.address, fleet.complete.wait())
        return _summary(fleet, before, during, killed, ready)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cluster.close()
        processes.close()


async def launches_during(address: str, event: Awaitable[object]) -> list[float]:
    """Launch runs until the event has happened; returns how many seconds each launch took."""
    answered: list[float] = []
    stop = threading.Event()
    launching = asyncio.create_task(asyncio.to_thread(launch_until, stop, address, answered))
    await event
    stop.set()
    await launching
    return answered


def _summary(
    fleet: Fleet, before: list[float], during: list[float], killed: float, ready: float
) -> dict[str, float]:
    back = sorted(at - ready for at in fleet.welcomed_at.values())
    return {
        "coordinator_away_s": round(ready - killed, 2),
        "half_back_s": round(statistics.median(back), 2),
        "all_back_s": round(back[-1], 2),
        "launch_before_ms": round(statistics.median(before) * 1000, 1),
        "launches_during_return": len(during),
        "launch_during_return_ms": round(statistics.median(during or [0.0]) * 1000, 1),
        "slowest_launch_during_return_ms": round(max(during, default=0.0) * 1000, 1),
    }


def main() -> None:
    """Prints a table, and as the last line the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--agents", type=int, default=AGENTS)
    agents: int = parser.parse_args().agents
    with tempfile.TemporaryDirectory(prefix="runyard-") as folder:
        found = asyncio.run(measure(agents, Path(folder)))
    table = Table("what", "figure", title=f"{agents} agents after kill -9 of the coordinator")
    for name, figure in found.items():
        table.add_row(name, f"{figure:g}")
    Console().print(table)
    print(json.dumps({"benchmark": "reconnect", "agents": agents, **found}))


if __name__ == "__main__":
    main()
