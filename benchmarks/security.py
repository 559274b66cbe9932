"""What certificates cost: launches a second, and a fleet that connects at once, with TLS and in plain text.

    make bench NAME=security
    make bench NAME=security BENCH_ARGS='--agents 100 --launches 500 --rounds 1'

The coordinators are real processes on loopback, one of each kind at a time, in turns. The agents are real
sessions, many in one process, without workers; every one has a connection of its own. Both sides share the
machine, so both halves of each handshake are counted.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from harness.local_cluster import READY
from harness.processes import Processes, free_port, wait_for_text
from rich.console import Console
from rich.table import Table

from runyard.client import Client, TlsFiles
from runyard.common.security.identity import Identity, Role
from runyard.common.transport.channel import open_aio_channel
from runyard.common.transport.tls import TlsMaterial
from runyard.coordinator.ca.authority_directory import AuthorityDirectory
from runyard.v1 import agent_pb2, agent_pb2_grpc, placement_pb2, run_pb2

AGENTS = 300
LAUNCHES = 2_000
ROUNDS = 3
AT_ONCE = 32
"""Launches that wait for their answer at the same time."""

UNLIMITED = {"RUNYARD_COORDINATOR_RATES": json.dumps({"launch": {"per_second": 1e6, "burst": 1_000_000}})}
"""Callers with certificates are held back by a rate; this measures certificates."""

DAY = 86_400.0


@dataclass(frozen=True)
class Certificates:
    """Of everybody in the benchmark."""

    coordinator: TlsFiles
    client: TlsFiles
    agents: Sequence[TlsMaterial]

    @classmethod
    def made(cls, folder: Path, agents: int) -> "Certificates":
        """Issued by the built-in authority."""
        authority = AuthorityDirectory(folder / "ca")
        authority.init("runyard")

        def issue(identity: Identity, *hosts: str) -> TlsFiles:
            to = folder / identity.role / identity.name
            to.parent.mkdir(parents=True, exist_ok=True)
            authority.issue(identity, hosts, DAY, to)
            return TlsFiles(to / "authority.pem", to / "certificate.pem", to / "key.pem")

        return cls(
            issue(Identity(Role.COORDINATOR, "bench"), "localhost", "127.0.0.1"),
            issue(Identity(Role.CLIENT, "bench")),
            [issue(Identity(Role.AGENT, f"node-{number}", "bench")).read() for number in range(agents)],
        )


@dataclass(frozen=True)
class Figures:
    """Of one round with one coordinator."""

    launches_per_second: float
    storm_seconds: float


@contextlib.contextmanager
def coordinator(folder: Path, tls: TlsFiles | None) -> Iterator[str]:
    """A coordinator with an empty state; gives its address."""
    processes = Processes(folder)
    address = f"127.0.0.1:{free_port()}"
    named = (
        ()
        if tls is None
        else (
            *("--tls-authority", str(tls.authority)),
            *("--tls-certificate", str(tls.certificate)),
            *("--tls-key", str(tls.key)),
        )
    )
    try:
        argv = (
            sys.executable,
            "-m",
            "runyard.coordinator",
            "--listen",
            address,
            "--state",
            str(folder / "state"),
        )
        child = processes.start("coordinator", *argv, "--log-format", "json", *named, environment=UNLIMITED)
        wait_for_text(child, READY)
        yield address
    finally:
        processes.close()


async def storm(
    address: str, certificates: Sequence[TlsMaterial | None], stack: contextlib.AsyncExitStack
) -> float:
    """Has all agents connect at once; gives the seconds until the last was welcomed."""
    began = time.monotonic()
    async with asyncio.timeout(300):
        await asyncio.gather(
            *(
                stack.enter_async_context(session(address, number, tls))
                for number, tls in enumerate(certificates)
            )
        )
    return time.monotonic() - began


@contextlib.asynccontextmanager
async def session(address: str, number: int, tls: TlsMaterial | None) -> AsyncIterator[None]:
    """One agent, from its welcome on; its messages wait unread."""
    async with open_aio_channel(address, tls) as channel:
        call = agent_pb2_grpc.AgentServiceStub(channel).Session()
        await call.write(agent_pb2.SessionRequest(hello=_hello(number)))
        response = await call.read()
        assert isinstance(response, agent_pb2.SessionResponse), await call.details()
        yield
        call.cancel()


def launches(address: str, tls: TlsFiles | None, count: int) -> float:
    """Launch so many runs, some of them at once; returns how many were answered per second."""
    with Client(address, tls=tls) as client, ThreadPoolExecutor(AT_ONCE) as threads:
        client.launch_run(_spec(), timeout=60.0)  # opens the connection
        began = time.monotonic()
        for launched in [threads.submit(client.launch_run, _spec(), timeout=60.0) for _ in range(count)]:
            launched.result()
        return count / (time.monotonic() - began)


async def measure(address: str, certificates: Certificates | None, agents: int, count: int) -> Figures:
    """One round with the coordinator there."""
    shown = [None] * agents if certificates is None else certificates.agents
    async with contextlib.AsyncExitStack() as stack:
        seconds = await storm(address, shown, stack)
        client = None if certificates is None else certificates.client
        return Figures(await asyncio.to_thread(launches, address, client, count), seconds)


def _hello(number: int) -> agent_pb2.Hello:
    return agent_pb2.Hello(
        node_id=f"node-{number}",
        cluster="bench",
        installation_id=f"installation-{number}",
        instance_id="bench",
        boot_id="bench",
        protocol_min=1,
        protocol_max=1,
        offer=placement_pb2.Offer(drivers=["process"], resources={"slots": 100}),
    )


def _spec() -> run_pb2.LaunchSpec:
    return run_pb2.LaunchSpec(
        run_id=str(uuid.uuid4()),
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        worker_args="{}",
        deployment="bench",
    )


def main() -> None:
    """Prints a table, and as the last line the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--agents", type=int, default=AGENTS)
    parser.add_argument("--launches", type=int, default=LAUNCHES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runyard-") as folder:
        figures = _rounds(Path(folder), given.agents, given.launches, given.rounds)
    found = {
        name: round(statistics.median(values), 3)
        for name, values in {
            "launches_per_s_plain": [plain.launches_per_second for plain, _ in figures],
            "launches_per_s_tls": [tls.launches_per_second for _, tls in figures],
            "launches_ratio": [tls.launches_per_second / plain.launches_per_second for plain, tls in figures],
            "storm_s_plain": [plain.storm_seconds for plain, _ in figures],
            "storm_s_tls": [tls.storm_seconds for _, tls in figures],
            "storm_ratio": [tls.storm_seconds / plain.storm_seconds for plain, tls in figures],
        }.items()
    }
    table = Table("what", "median", title=f"{given.agents} agents, {given.launches} launches")
    for name, figure in found.items():
        table.add_row(name, f"{figure:g}")
    Console().print(table)
    facts = {
        "agents": given.agents,
        "launches": given.launches,
        "rounds": given.rounds,
        "grpc": grpc.__version__,
    }
    print(json.dumps({"benchmark": "security", **facts, **found}))


def _rounds(folder: Path, agents: int, count: int, rounds: int) -> list[tuple[Figures, Figures]]:
    certificates = Certificates.made(folder / "certificates", agents)
    pairs: list[tuple[Figures, Figures]] = []
    for number in range(rounds):
        with coordinator(folder / f"plain-{number}", None) as address:
            plain = asyncio.run(measure(address, None, agents, count))
        with coordinator(folder / f"tls-{number}", certificates.coordinator) as address:
            tls = asyncio.run(measure(address, certificates, agents, count))
        pairs.append((plain, tls))
    return pairs


if __name__ == "__main__":
    main()
