"""An agent that stands for a whole cluster, which grows and shrinks, in session with a real coordinator."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from agent.small_workers import RHYTHM
from harness.services import ProcessCluster, open_cluster
from harness.waiting import await_until

from runyard.agent.config.agent import AgentSettings
from runyard.agent.drivers.base import Driver, OnChange
from runyard.agent.drivers.fake import FakeClusterDriver, FakeRun
from runyard.agent.node.capacity import Capacity
from runyard.agent.node.installation import Installation
from runyard.agent.node.isolation_backends import WATCHDOG_ONLY
from runyard.agent.runtime import resource_monitor as monitor_module
from runyard.agent.runtime.build import wire_agent
from runyard.agent.session.identity import SessionIdentity
from runyard.agent.session.session import stay_in_session
from runyard.agent.session.task_group import until_first_ends
from runyard.agent.supervisor.procfs import boot_id
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.client import Client, LaunchRefused
from runyard.v1 import fleet_pb2, placement_pb2, run_pb2

CAPACITY = Capacity({"slots": 100, "cpu": 400_000}, largest_run={"cpu": 16_000})
FOR_EVER = 3_600.0
LIVE = [run_pb2.PHASE_STARTING, run_pb2.PHASE_RUNNING]


class Gateway:
    """The coordinator's side of a cluster, and the cluster.

    Args:
        client: Of the coordinator.
        cluster: The driver of the agent.
    """

    def __init__(self, client: Client, cluster: FakeClusterDriver) -> None:
        self.client = client
        self.cluster = cluster
        self._family = uuid.uuid4().hex[:8]

    async def launch(self, number: int, cpu: int = 4000) -> run_pb2.Run:
        """A run that goes on for ever."""
        spec = run_pb2.LaunchSpec(
            run_id=self.run_id(number),
            kind=run_pb2.LAUNCH_KIND_EXECUTE,
            worker_args="{}",
            deployment="shop",
            code_origin=run_pb2.CodeOrigin(location="shop.py", job="orders"),
            requirements=placement_pb2.Requirements(driver="fake", resources={"cpu": cpu}),
        )
        return await asyncio.to_thread(self.client.launch_run, spec)

    async def stop(self, *numbers: int) -> None:
        """Ends runs."""
        for number in numbers:
            await asyncio.to_thread(self.client.terminate_run, self.run_id(number), reason="enough")

    def run_id(self, number: int) -> str:
        """The ID of the run with that number."""
        return f"{self._family}-0000-4000-8000-{number:012}"

    async def node(self) -> fleet_pb2.Node:
        """As the coordinator sees it."""
        return await asyncio.to_thread(self.client.get_node, "gate")

    async def live(self) -> int:
        """How many runs the cluster works on."""
        runs = await asyncio.to_thread(lambda: list(self.client.list_runs(phases=LIVE)))
        return len(runs)

    async def until_live(self, count: int) -> bool:
        """True as soon as the cluster works on so many runs."""

        async def reached() -> bool | None:
            return await self.live() == count or None

        return await await_until(reached, f"{count} live runs")

    async def until_over(self, *numbers: int) -> bool:
        """True as soon as the runs have ended."""
        ids = {self.run_id(number) for number in numbers}

        async def reached() -> bool | None:
            over = await asyncio.to_thread(
                lambda: list(self.client.list_runs(phases=[run_pb2.PHASE_FINISHED]))
            )
            return ids <= {run.run_id for run in over} or None

        return await await_until(reached, "the runs go on")

    async def until_offered(self, slots: int) -> fleet_pb2.Node:
        """The node, as soon as it offers so much."""

        async def reached() -> fleet_pb2.Node | None:
            node = await self.node()
            return node if node.offer.resources["slots"] == slots else None

        return await await_until(reached, f"{slots} slots on offer")


@pytest.fixture
def services() -> Iterator[ProcessCluster]:
    """A coordinator."""
    with open_cluster() as made:
        made.coordinator(settings=RHYTHM).wait_for_event("ready")
        yield made


@pytest.fixture
async def gateway(services: ProcessCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """An agent with a cluster of 100 slots and 400 cores, on this event loop."""
    monkeypatch.setattr(monitor_module, "CHECK_EVERY", 0.1)
    settings = AgentSettings(
        coordinator=services.address, node_id="gate", cluster="farm", state_directory=services.folder / "gate"
    )
    installation = Installation(settings.state_directory)

    def make_drivers(directories: RunDirectories, on_change: OnChange) -> dict[str, Driver]:
        run = FakeRun(run_for=FOR_EVER)
        return {"fake": FakeClusterDriver(directories, on_change, CAPACITY, lambda key: run)}

    directories = RunDirectories(settings.state_directory)
    agent = await wire_agent(settings, directories, WATCHDOG_ONLY, make_drivers)
    cluster = agent.drivers.by_name["fake"]
    assert isinstance(cluster, FakeClusterDriver)
    await agent.open()
    identity = SessionIdentity(installation, "instance", boot_id())
    leaving = asyncio.Event()
    working = asyncio.create_task(
        until_first_ends(
            agent.runtime.run(), agent.resources.run(), stay_in_session(agent, identity, leaving)
        )
    )
    with Client(services.address) as client:
        made = Gateway(client, cluster)

        async def joined() -> fleet_pb2.Node | None:
            nodes = await asyncio.to_thread(client.list_nodes)
            return nodes[0] if nodes else None

        node: fleet_pb2.Node = await await_until(joined, "the gateway has not joined")
        assert node.cluster == "farm"
        yield made
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    await agent.close()
    installation.release()


async def test_a_gateway_joins_with_the_capacity_of_its_cluster(gateway: Gateway) -> None:
    offer = (await gateway.node()).offer
    assert offer.gateway
    assert dict(offer.resources) == {"slots": 100, "cpu": 400_000}
    assert dict(offer.largest_run) == {"cpu": 16_000}
    assert list(offer.drivers) == ["fake"]


async def test_a_run_that_no_machine_behind_the_gateway_could_hold_is_refused(gateway: Gateway) -> None:
    with pytest.raises(LaunchRefused, match=r"0/1 nodes available: 1 with too little cpu for one run"):
        await gateway.launch(0, cpu=17_000)


async def test_runs_wait_for_a_cluster_that_was_scaled_to_nothing(gateway: Gateway) -> None:
    gateway.cluster.now = Capacity({}, CAPACITY.largest_run)
    await gateway.until_offered(slots=0)
    assert (await gateway.launch(0)).phase == run_pb2.PHASE_QUEUED
    gateway.cluster.now = CAPACITY
    await gateway.until_live(1)


async def test_runs_fill_a_cluster_and_follow_it_as_it_shrinks_and_grows(gateway: Gateway) -> None:
    for number in range(100):
        await gateway.launch(number)
    await gateway.until_live(100)
    assert dict((await gateway.node()).allocated) == {"slots": 100, "cpu": 400_000}
    for number in range(100, 103):
        assert (await gateway.launch(number)).phase == run_pb2.PHASE_QUEUED

    gateway.cluster.now = Capacity({"slots": 98, "cpu": 392_000}, CAPACITY.largest_run)
    await gateway.until_offered(slots=98)
    await gateway.stop(0, 1, 2)  # two make up for what is gone, one for a run that waits
    await gateway.until_over(0, 1, 2)
    await gateway.until_live(98)
    assert (await gateway.node()).allocated["slots"] == 98

    gateway.cluster.now = CAPACITY
    await gateway.until_offered(slots=100)
    await gateway.until_live(100)
    assert dict((await gateway.node()).allocated) == {"slots": 100, "cpu": 400_000}
