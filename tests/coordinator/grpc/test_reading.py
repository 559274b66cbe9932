"""ListRuns, WatchRuns and FleetService: what people and dashboards see."""

import asyncio
from typing import Any

import grpc
import pytest
from coordinator.fleet_building import finished, make_hello, running, warm_server
from coordinator.serving import SOON, Serving, StubAgent, make_spec, refusal, run_id
from harness.waiting import await_until

from runyard.coordinator.runtime import watchers
from runyard.v1 import agent_pb2, fleet_pb2, launch_pb2, placement_pb2, run_pb2

QUEUED = run_pb2.PHASE_QUEUED
ASSIGNED = run_pb2.PHASE_ASSIGNED
RUNNING = run_pb2.PHASE_RUNNING
FINISHED = run_pb2.PHASE_FINISHED


async def listed(coordinator: Serving, size: int = 0, token: str = "", **match: Any) -> tuple[list[int], str]:
    """One page: the numbers of the runs, and the token of the next page."""
    request = launch_pb2.ListRunsRequest(
        filter=launch_pb2.RunFilter(**match), page_size=size, page_token=token
    )
    response = await coordinator.launch.ListRuns(request, timeout=SOON)
    return [int(run.run_id[-12:]) for run in response.runs], response.next_page_token


async def launch_many(coordinator: Serving, *numbers: int, **fields: Any) -> None:
    for number in numbers:
        await coordinator.launched(make_spec(run_id(number), **fields))


# ListRuns


async def test_runs_are_listed_newest_first(coordinator: Serving, agent: StubAgent) -> None:
    await launch_many(coordinator, 2, 3, 1)
    assert await listed(coordinator) == ([1, 3, 2], "")


async def test_pages_give_every_run_once_while_others_are_launched(
    coordinator: Serving, agent: StubAgent
) -> None:
    await launch_many(coordinator, *range(1, 8))
    seen, token = await listed(coordinator, size=3)
    await launch_many(coordinator, 100)
    while token:
        page, token = await listed(coordinator, size=3, token=token)
        seen += page
    assert seen == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("size", [1, 3, 4])
async def test_last_page_has_no_token(coordinator: Serving, agent: StubAgent, size: int) -> None:
    await launch_many(coordinator, 1, 2, 3)
    pages, token = 0, "first"
    while token:
        _, token = await listed(coordinator, size=size, token="" if token == "first" else token)
        pages += 1
    assert pages == {1: 3, 3: 1, 4: 1}[size]


async def test_page_has_a_hundred_runs_unless_asked_otherwise(coordinator: Serving, agent: StubAgent) -> None:
    await asyncio.gather(*(coordinator.launched(make_spec(run_id(number))) for number in range(101)))
    assert len((await listed(coordinator))[0]) == 100
    assert len((await listed(coordinator, size=1_000))[0]) == 101


async def test_empty_list_is_an_empty_page(coordinator: Serving) -> None:
    assert await listed(coordinator) == ([], "")


@pytest.fixture
async def varied(coordinator: Serving) -> Serving:
    """Run 1 runs on node-a in west, 2 is over on node-b in east, 3 waits, 4 is of another deployment."""
    west = await coordinator.join(make_hello("node-a", cluster="west", slots=1))
    east = await coordinator.join(make_hello("node-b", cluster="east", slots=1))
    in_west = placement_pb2.Requirements(cluster="west")
    await launch_many(coordinator, 1, requirements=in_west)
    await launch_many(coordinator, 2, requirements=placement_pb2.Requirements(cluster="east"))
    await west.report(running(run_id(1)))
    await east.report(finished(run_id(2)))
    await coordinator.until_phase(RUNNING, run_id(1))
    await coordinator.until_phase(FINISHED, run_id(2))
    await launch_many(coordinator, 3, requirements=in_west)
    await launch_many(coordinator, 4, deployment="factory", requirements=in_west)
    return coordinator


FILTERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "everything": ({}, [4, 3, 2, 1]),
    "run IDs": ({"run_ids": [run_id(1), run_id(3), run_id(99)]}, [3, 1]),
    "a phase": ({"phases": [RUNNING]}, [1]),
    "some phases": ({"phases": [QUEUED, FINISHED]}, [4, 3, 2]),
    "a cluster": ({"cluster": "west"}, [1]),
    "a node": ({"node": "node-b"}, [2]),
    "a deployment": ({"deployment": "factory"}, [4]),
    "several things at once": ({"deployment": "shop", "phases": [QUEUED]}, [3]),
    "nothing that exists": ({"cluster": "north"}, []),
}


@pytest.mark.parametrize("what", FILTERS)
async def test_list_is_filtered_by(varied: Serving, what: str) -> None:
    match, expected = FILTERS[what]
    assert (await listed(varied, **match))[0] == expected


# WatchRuns


class Watch:
    """An open WatchRuns."""

    def __init__(self, coordinator: Serving, **match: Any) -> None:
        request = launch_pb2.WatchRunsRequest(filter=launch_pb2.RunFilter(**match))
        self.call = coordinator.launch.WatchRuns(request)

    async def next(self) -> tuple[int, str]:
        """The number of the run that changed, and its phase."""
        response = await asyncio.wait_for(self.call.read(), SOON)
        assert isinstance(response, launch_pb2.WatchRunsResponse)
        phase = run_pb2.Phase.Name(response.run.phase).removeprefix("PHASE_").lower()
        return int(response.run.run_id[-12:]), phase


async def test_watcher_sees_the_runs_as_they_are_and_then_each_change(
    coordinator: Serving, agent: StubAgent
) -> None:
    await launch_many(coordinator, 1)
    watch = Watch(coordinator)
    assert await watch.next() == (1, "assigned")
    await agent.report(running(run_id(1)))
    assert await watch.next() == (1, "running")
    await launch_many(coordinator, 2)
    assert [await watch.next() for _ in range(2)] == [(2, "queued"), (2, "assigned")]
    await agent.report(finished(run_id(1)))
    assert await watch.next() == (1, "finished")


async def test_watcher_sees_only_what_it_asked_for(coordinator: Serving, agent: StubAgent) -> None:
    watch = Watch(coordinator, run_ids=[run_id(2)], phases=[ASSIGNED, FINISHED])
    await launch_many(coordinator, 1, 2)
    await agent.report(running(run_id(2)))
    await agent.report(finished(run_id(2)))
    assert [await watch.next() for _ in range(2)] == [(2, "assigned"), (2, "finished")]


async def test_watcher_that_reads_too_slowly_gets_an_error_after_the_queued_changes(
    coordinator: Serving, agent: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "LIMIT", 3)
    await launch_many(coordinator, 1)
    watch = Watch(coordinator)
    await watch.next()
    # One step of the event loop in which ten runs change: more than the watcher can take meanwhile.
    for run in [coordinator.runtime.fleet.runs[run_id(1)]] * 10:
        coordinator.runtime.watchers.publish(run)
    assert [await watch.next() for _ in range(3)] == [(1, "assigned")] * 3
    code, text = await refusal(drain(watch))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "did not keep up" in text


async def drain(watch: Watch) -> None:
    while True:
        await watch.next()


async def test_watcher_that_leaves_is_forgotten(coordinator: Serving, agent: StubAgent) -> None:
    watch = Watch(coordinator)
    await launch_many(coordinator, 1)
    await watch.next()
    watchers_now = coordinator.runtime.watchers._watchers
    assert len(watchers_now) == 1
    watch.call.cancel()
    await await_until(lambda: not watchers_now, "the watcher is still registered", SOON)


# FleetService


async def test_node_is_shown_with_what_it_offers_and_how_busy_it_is(coordinator: Serving) -> None:
    agent = await coordinator.join(make_hello(slots=3, labels={"zone": "1"}, drivers=["process", "docker"]))
    await launch_many(coordinator, 1, 2)
    beat = agent_pb2.Heartbeat(sequence=1, load=fleet_pb2.NodeLoad(cpu_fraction=0.25))
    await agent.send(heartbeat=beat)
    for _ in range(2):
        await agent.expect("assign")
    await agent.expect("heartbeat_ack")
    request = fleet_pb2.GetNodeRequest(node_id="node-a")
    node = (await coordinator.fleet.GetNode(request, timeout=SOON)).node
    assert (node.node_id, node.cluster, node.state) == ("node-a", "default", fleet_pb2.NODE_STATE_READY)
    assert (dict(node.offer.labels), list(node.offer.drivers)) == ({"zone": "1"}, ["process", "docker"])
    assert (dict(node.offer.resources), dict(node.allocated)) == ({"slots": 3}, {"slots": 2})
    assert (node.epoch, node.boot_id) == (1, "boot-1")
    assert (node.facts.hostname, node.load.cpu_fraction) == ("node-a.example", 0.25)
    assert node.HasField("last_heard_at")


async def test_warm_servers_of_a_node_are_shown_and_refreshed(coordinator: Serving) -> None:
    agent = await coordinator.join()
    told = [warm_server("shop.py", name="one"), warm_server("bakery.py", name="two")]
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=1, warm_servers=told))
    await agent.expect("heartbeat_ack")
    request = fleet_pb2.GetNodeRequest(node_id="node-a")
    node = (await coordinator.fleet.GetNode(request, timeout=SOON)).node
    assert list(node.warm_servers) == told

    ask = fleet_pb2.RefreshWarmServersRequest(node_id="node-a")
    assert (await coordinator.fleet.RefreshWarmServers(ask, timeout=SOON)).servers == 2
    assert (await agent.expect("refresh_warm_servers")).name == ""
    code, text = await refusal(
        coordinator.fleet.RefreshWarmServers(
            fleet_pb2.RefreshWarmServersRequest(node_id="node-a", name="three"), timeout=SOON
        )
    )
    assert (code, text) == (
        grpc.StatusCode.NOT_FOUND,
        "node node-a has no warm server 'three'; it has one, two",
    )


async def test_node_that_never_joined_is_NOT_FOUND(coordinator: Serving) -> None:
    code, text = await refusal(coordinator.fleet.GetNode(fleet_pb2.GetNodeRequest(node_id="nobody")))
    assert code == grpc.StatusCode.NOT_FOUND
    assert "no node 'nobody' has ever joined" in text


async def test_nodes_are_listed_by_name_and_by_cluster(varied: Serving) -> None:
    async def names(cluster: str) -> list[str]:
        request = fleet_pb2.ListNodesRequest(cluster=cluster)
        return [node.node_id for node in (await varied.fleet.ListNodes(request, timeout=SOON)).nodes]

    assert [await names(cluster) for cluster in ("", "east", "north")] == [
        ["node-a", "node-b"],
        ["node-b"],
        [],
    ]


async def test_clusters_are_listed_with_the_sums_over_their_ready_nodes(varied: Serving) -> None:
    await varied.join(make_hello("node-c", cluster="west", slots=5))
    varied.agents[0].vanish()
    await varied.until_node(fleet_pb2.NODE_STATE_SUSPECT)
    response = await varied.fleet.ListClusters(fleet_pb2.ListClustersRequest(), timeout=SOON)
    assert [(it.name, it.nodes, it.nodes_ready) for it in response.clusters] == [
        ("east", 1, 1),
        ("west", 2, 1),
    ]
    assert [dict(it.resources) for it in response.clusters] == [{"slots": 1}, {"slots": 5}]
    allocated = [dict(it.allocated) for it in response.clusters]
    assert allocated == [{}, {"slots": 2}], "of west's three runs, one is on a silent node"
