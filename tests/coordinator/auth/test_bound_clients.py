"""Clients that are bound to clusters: clusters that they may use, and runs that they see."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from coordinator.auth.secured import Secured, secured
from coordinator.fleet_building import finished, make_hello
from coordinator.serving import RUN_ID, SOON, Serving, make_spec, refusal, run_id
from harness.certificates import CLIENT, OPERATOR, agent

from runyard.common.security.identity import Identity, Role
from runyard.v1 import fleet_pb2, launch_pb2, placement_pb2, run_pb2

NIGHT = Identity(Role.CLIENT, "night")
DENIED = grpc.StatusCode.PERMISSION_DENIED
EAST, WEST = "east", "west"


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path, bound={"night": (EAST,)}) as opened:
        for cluster in (EAST, WEST):
            node = f"node-{cluster}"
            hello = make_hello(node, cluster=cluster, slots=8)
            opened.agents[node] = await opened.as_(agent(node, cluster)).join(hello)
        yield opened


@pytest.fixture
def night(coordinator: Secured) -> Serving:
    return coordinator.as_(NIGHT)


@pytest.fixture
def day(coordinator: Secured) -> Serving:
    return coordinator.as_(CLIENT)


async def test_run_says_who_launched_it(night: Serving, day: Serving) -> None:
    assert (await night.launched()).launched_by == NIGHT.uri
    assert (await day.launched(make_spec(run_id(2)))).launched_by == CLIENT.uri
    assert (await day.get()).run.launched_by == NIGHT.uri


async def test_runs_of_a_bound_client_stay_in_its_clusters(night: Serving) -> None:
    runs = [await night.launched(make_spec(run_id(number))) for number in range(1, 9)]
    assert {run.cluster for run in runs} == {EAST}


@pytest.mark.parametrize("tags", [{"runyard/cluster": WEST}, {}])
async def test_launch_that_names_another_cluster_is_denied(night: Serving, tags: dict[str, str]) -> None:
    spec = make_spec(tags=tags) if tags else make_spec(requirements=placement_pb2.Requirements(cluster=WEST))
    code, details = await refusal(night.launched(spec))
    assert code == DENIED
    assert f"{NIGHT.uri} may not use cluster west: it is bound to cluster east" in details


async def test_node_of_another_cluster_takes_none_of_its_runs(night: Serving) -> None:
    code, _ = await refusal(night.launched(make_spec(tags={"runyard/node": "node-west"})))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    run = await night.launched(make_spec(run_id(2), tags={"runyard/node": "node-east"}))
    assert run.node == "node-east"


async def test_bound_client_sees_and_stops_its_own_runs_only(night: Serving, day: Serving) -> None:
    mine, other = RUN_ID, run_id(2)
    await night.launched()
    await day.launched(make_spec(other))
    listed = await night.launch.ListRuns(launch_pb2.ListRunsRequest(), timeout=SOON)
    assert [run.run_id for run in listed.runs] == [mine]
    assert (await refusal(night.get(other)))[0] == grpc.StatusCode.NOT_FOUND
    explain = launch_pb2.ExplainRunRequest(run_id=other)
    assert (await refusal(night.launch.ExplainRun(explain, timeout=SOON)))[0] == grpc.StatusCode.NOT_FOUND
    assert (await refusal(night.terminated(other)))[0] == grpc.StatusCode.NOT_FOUND
    assert not (await day.get(other)).run.stop_requested
    assert (await night.terminated(mine)).stopping
    everything = await day.launch.ListRuns(launch_pb2.ListRunsRequest(), timeout=SOON)
    assert {run.run_id for run in everything.runs} == {mine, other}


async def test_bound_client_does_not_see_changes_of_other_clients_runs(night: Serving, day: Serving) -> None:
    call = night.launch.WatchRuns(launch_pb2.WatchRunsRequest(), timeout=SOON)
    await day.launched(make_spec(run_id(2)))
    await night.launched()
    response = await asyncio.wait_for(call.read(), SOON)
    assert isinstance(response, launch_pb2.WatchRunsResponse)
    assert response.run.run_id == RUN_ID


async def test_bound_client_cannot_take_over_a_run_by_launching_it_again(
    night: Serving, day: Serving
) -> None:
    await day.launched()
    code, details = await refusal(night.launched())
    assert code == DENIED
    assert "was launched by another client" in details


async def test_bound_client_sees_the_nodes_of_its_clusters(night: Serving, day: Serving) -> None:
    async def nodes(of: Serving) -> set[str]:
        answer = await of.fleet.ListNodes(fleet_pb2.ListNodesRequest(), timeout=SOON)
        return {node.node_id for node in answer.nodes}

    async def clusters(of: Serving) -> set[str]:
        answer = await of.fleet.ListClusters(fleet_pb2.ListClustersRequest(), timeout=SOON)
        return {cluster.name for cluster in answer.clusters}

    assert (await nodes(night), await clusters(night)) == ({"node-east"}, {EAST})
    assert (await nodes(day), await clusters(day)) == ({"node-east", "node-west"}, {EAST, WEST})
    get = fleet_pb2.GetNodeRequest(node_id="node-west")
    assert (await refusal(night.fleet.GetNode(get, timeout=SOON)))[0] == grpc.StatusCode.NOT_FOUND


async def test_reporters_of_bound_clients_do_not_wait_for_one_another(
    night: Serving, day: Serving, coordinator: Secured
) -> None:
    async def follow(of: Serving) -> run_pb2.Run:
        call = of.launch.FollowReports()
        await call.write(launch_pb2.FollowReportsRequest(deployment="shop", reporter="test"))
        response = await asyncio.wait_for(call.read(), SOON)
        assert isinstance(response, launch_pb2.FollowReportsResponse)
        return response.run

    await night.launched()
    await day.launched(make_spec(run_id(2)))
    operator = coordinator.as_(OPERATOR)
    waiting = [asyncio.create_task(follow(each)) for each in (day, night)]
    for each in (RUN_ID, run_id(2)):
        run = (await operator.terminated(each)).run
        await coordinator.agents[run.node].report(finished(run.run_id, run.attempt))
    reported = await asyncio.gather(*waiting)
    assert reported[1].run_id == RUN_ID
