"""ExplainRun and ExplainLaunch over real gRPC."""

import json
from typing import Any

import grpc
from coordinator.cases.building import job, op
from coordinator.fleet_building import make_hello
from coordinator.requirements.jobs import snapshot_of
from coordinator.serving import RUN_ID, SOON, Serving, StubAgent, make_spec, refusal, run_id

from runyard.v1 import launch_pb2, placement_pb2, run_pb2

Status = grpc.StatusCode
ZONE_B = make_hello("node-b", slots=2, labels={"zone": "b"})


async def explained_run(coordinator: Serving, run: str = RUN_ID) -> placement_pb2.Explanation:
    request = launch_pb2.ExplainRunRequest(run_id=run)
    return (await coordinator.launch.ExplainRun(request, timeout=SOON)).explanation


async def explained_launch(coordinator: Serving, **fields: Any) -> placement_pb2.Explanation:
    fields = {"deployment": "shop", "job": "orders", "location": "shop.py", **fields}
    request = launch_pb2.ExplainLaunchRequest(**fields)
    return (await coordinator.launch.ExplainLaunch(request, timeout=SOON)).explanation


async def launch_with_snapshot(coordinator: Serving, run: str, plain: str, name: str = "orders") -> None:
    await coordinator.store_snapshot("snapshot-1", plain.encode())
    spec = make_spec(run, job_snapshot_id="snapshot-1", code_origin=run_pb2.CodeOrigin(job=name))
    request = launch_pb2.LaunchRunRequest(spec=spec)
    await coordinator.launch.LaunchRun(request, timeout=SOON)


def sources(explanation: placement_pb2.Explanation) -> dict[str, str]:
    return {field.name: field.source for field in explanation.fields}


async def test_a_run_is_explained_where_it_is(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    explanation = await explained_run(coordinator)
    assert explanation.verdict == (
        f"run {RUN_ID} was given to node node-a of cluster default: the only free node"
    )
    assert (await coordinator.get()).run.placed_because == "the only free node"


async def test_explanation_of_a_waiting_run_equals_the_answer_to_its_launch(
    coordinator: Serving, agent: StubAgent
) -> None:
    agent.vanish()
    await coordinator.join(make_hello("node-b", slots=1))
    await coordinator.launched(make_spec(run_id(1), tags={"runyard/node": "node-b"}))
    run = await coordinator.launched(make_spec(run_id(2), tags={"runyard/node": "node-b"}))
    explanation = await explained_run(coordinator, run_id(2))
    assert explanation.verdict == f"run {run_id(2)} is {run.message}"
    assert run.message.startswith(
        "waiting: 0/2 nodes available: 1 not the requested node, 1 without a free slot"
    )
    assert (explanation.queue_position, explanation.queue_length) == (1, 1)


async def test_an_unknown_run_is_NOT_FOUND(coordinator: Serving) -> None:
    code, text = await refusal(explained_run(coordinator))
    assert code == Status.NOT_FOUND
    assert RUN_ID in text
    assert (await refusal(explained_run(coordinator, "r1")))[0] == Status.INVALID_ARGUMENT


async def test_a_launch_that_is_only_thought_of_launches_nothing(
    coordinator: Serving, agent: StubAgent
) -> None:
    explanation = await explained_launch(coordinator)
    assert explanation.verdict == (
        "such a run would go to node node-a of cluster default: the only free node"
    )
    assert not (await coordinator.launch.ListRuns(launch_pb2.ListRunsRequest(), timeout=SOON)).runs


async def test_a_launch_that_would_be_refused_is_explained_and_one_that_makes_no_sense_is_not(
    coordinator: Serving, agent: StubAgent
) -> None:
    explanation = await explained_launch(coordinator, tags={"runyard/gpu": "1"})
    assert (
        explanation.verdict
        == "such a run would be refused: no node matches (0/1 nodes available: 1 without gpu)"
    )
    code, text = await refusal(explained_launch(coordinator, tags={"runyard/gpu": "one"}))
    assert code == Status.INVALID_ARGUMENT
    assert "runyard/gpu" in text
    code, text = await refusal(explained_launch(coordinator, job=""))
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith("job: is empty")


async def test_without_nodes_a_launch_would_be_refused(coordinator: Serving) -> None:
    assert "no node has joined this coordinator yet" in (await explained_launch(coordinator)).verdict


async def test_deployment_and_code_location_ask_for_what_they_last_asked_for(
    coordinator: Serving, agent: StubAgent
) -> None:
    context = json.dumps({"runyard": {"prefer": "zone=b"}})
    origin = run_pb2.CodeOrigin(location="shop.py", job="orders", container_context_json=context)
    wanted = placement_pb2.Requirements(labels=["!spot"])
    await coordinator.launched(make_spec(run_id(1), code_origin=origin, requirements=wanted))
    assert sources(await explained_launch(coordinator, job="pay")) == {
        "labels.spot": "deployment",
        "prefer": "code location shop.py",
    }
    assert sources(await explained_launch(coordinator, location="bakery")) == {"labels.spot": "deployment"}
    assert not sources(await explained_launch(coordinator, deployment="other"))


async def test_the_tags_of_a_jobs_ops_count_as_in_its_latest_run(
    coordinator: Serving, agent: StubAgent
) -> None:
    await coordinator.join(ZONE_B)
    await launch_with_snapshot(coordinator, run_id(1), snapshot_of(job(op("train", labels="zone=b"))))
    explanation = await explained_launch(coordinator)
    assert [node.node for node in explanation.nodes] == ["node-b"]
    assert sources(explanation) == {"labels.zone": "op train"}
    assert not sources(await explained_launch(coordinator, job="pay"))
    named = await explained_launch(coordinator, job="pay", job_snapshot_id="snapshot-1")
    assert sources(named) == {"labels.zone": "op train"}
    assert not sources(await explained_launch(coordinator, step_keys=["fetch"]))


async def test_the_assets_of_an_earlier_ad_hoc_run_say_nothing_of_the_next(
    coordinator: Serving, agent: StubAgent
) -> None:
    await coordinator.join(ZONE_B)
    plain = snapshot_of(job(op("train", labels="zone=b")))
    await launch_with_snapshot(coordinator, run_id(1), plain, "__ASSET_JOB")
    assert not sources(await explained_launch(coordinator, job="__ASSET_JOB"))


async def test_a_snapshot_that_is_not_held_is_NOT_FOUND(coordinator: Serving, agent: StubAgent) -> None:
    code, text = await refusal(explained_launch(coordinator, job_snapshot_id="snapshot-9"))
    assert code == Status.NOT_FOUND
    assert "snapshot-9" in text
