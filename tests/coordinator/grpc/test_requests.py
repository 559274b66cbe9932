"""Requests that cannot be right: each is refused with the name of the field and what would be right."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from coordinator.fleet_building import make_hello
from coordinator.serving import RUN_ID, SOON, Serving, StubAgent, make_spec, refusal
from google.protobuf.duration_pb2 import Duration

from runyard.coordinator.grpc.messages import requests
from runyard.v1 import agent_pb2, launch_pb2, placement_pb2, run_pb2

Status = grpc.StatusCode


def changed(**fields: Any) -> run_pb2.LaunchSpec:
    """A spec in which these fields are as given, and empty where None is given."""
    spec = make_spec(**{name: value for name, value in fields.items() if value is not None})
    for name, value in fields.items():
        if value is None:
            spec.ClearField(name)  # type: ignore[arg-type]
    return spec


def wanting(**requirements: Any) -> run_pb2.LaunchSpec:
    return make_spec(requirements=placement_pb2.Requirements(**requirements))


def limited(**policies: float) -> run_pb2.LaunchSpec:
    return make_spec(
        policies=run_pb2.Policies(**{name: Duration(seconds=int(value)) for name, value in policies.items()})
    )


def located(context_json: str) -> run_pb2.LaunchSpec:
    spec = make_spec()
    spec.code_origin.container_context_json = context_json
    return spec


LAUNCHES: dict[str, tuple[run_pb2.LaunchSpec, str]] = {
    "no run ID": (make_spec(""), "spec.run_id: is empty; give Dagster's run ID"),
    "a run ID that is none": (make_spec("../../etc"), "spec.run_id: '../../etc' is not a run ID"),
    "a run ID with braces": (make_spec("{" + RUN_ID + "}"), "spec.run_id: "),
    "a run ID without dashes": (make_spec(RUN_ID.replace("-", "")), "spec.run_id: "),
    "a run ID as a URN": (make_spec(f"urn:uuid:{RUN_ID}"), "spec.run_id: "),
    "no kind": (changed(kind=None), "spec.kind: is not set; give EXECUTE or RESUME"),
    "a kind that is none": (changed(kind=77), "spec.kind: "),
    "a resume without a number": (
        changed(kind=run_pb2.LAUNCH_KIND_RESUME),
        "spec.resume_number: must be 0 for EXECUTE and at least 1 for RESUME",
    ),
    "a number without a resume": (changed(resume_number=1), "spec.resume_number: "),
    "no worker arguments": (changed(worker_args=None), "spec.worker_args: is empty"),
    "no deployment": (changed(deployment=None), "spec.deployment: is empty"),
    "a variable without a name": (
        changed(environment={"": "x"}),
        "spec.environment: '' is not a valid variable name",
    ),
    "a variable with =": (
        changed(environment={"A=B": "x"}),
        "spec.environment: 'A' is not a valid variable name",
    ),
    "a reference for a variable without a name": (
        changed(environment_references={"": {"env": "X"}}),
        "spec.environment_references: '' is not a valid variable name",
    ),
    "a variable with a zero byte": (changed(environment={"A": "x\0"}), "spec.environment: 'A'"),
    "a cluster with a slash": (wanting(cluster="a/b"), "spec.requirements.cluster: 'a/b' may hold only"),
    "a node with a space": (wanting(node="a b"), "spec.requirements.node: 'a b'"),
    "a driver with a newline": (wanting(driver="docker\n"), "spec.requirements.driver: "),
    "a label with two slashes": (
        wanting(labels=["a/b/c=x"]),
        "spec.requirements.labels: has the part 'a/b/c=x'",
    ),
    "a label value with a space": (
        wanting(labels=["zone=a b"]),
        "spec.requirements.labels: has the part 'zone=a b'",
    ),
    "a negative grace": (limited(grace=-1), "spec.policies.grace: is -1 s; it cannot be negative"),
    "a negative queue time": (limited(max_queue_time=-5), "spec.policies.max_queue_time: "),
    "a negative start timeout": (limited(start_timeout=-5), "spec.policies.start_timeout: "),
    "a tag that makes no sense": (
        make_spec(tags={"runyard/grace": "soon"}),
        "tag runyard/grace of the run: 'soon' is not a span of time; write seconds as 90",
    ),
    "a tag that is misspelt": (
        make_spec(tags={"runyard/memroy": "4Gi"}),
        "tag runyard/memroy of the run: is not a tag of Runyard; did you mean runyard/memory?",
    ),
    "a tag that contradicts itself": (
        make_spec(tags={"runyard/labels": "zone=a,zone=b"}),
        "tag runyard/labels of the run: has both zone=a and zone=b",
    ),
    "a code location that makes no sense": (
        located('{"runyard": {"cpu": "many"}}'),
        "cpu of container_context.runyard of code location shop.py: 'many' is not a number of cores",
    ),
    "a code location with an unknown key": (
        located('{"runyard": {"label": "a"}}'),
        "container_context.runyard of code location shop.py: has the unknown key 'label'; did you mean",
    ),
    "a code location without a dictionary": (
        located('{"runyard": "gpu"}'),
        "container_context.runyard of code location shop.py: is not a dictionary; write for example",
    ),
    "a context that is not JSON": (
        located("{"),
        "spec.code_origin.container_context_json: is not JSON",
    ),
    "a context that is no object": (
        located("[]"),
        "spec.code_origin.container_context_json: is not a JSON object",
    ),
    "a snapshot ID that is too long": (changed(job_snapshot_id="x" * 65), "spec.job_snapshot_id: "),
}


@pytest.mark.parametrize("what", LAUNCHES)
async def test_launch_that_cannot_be_right_is_refused_by_field(coordinator: Serving, what: str) -> None:
    spec, message = LAUNCHES[what]
    code, text = await refusal(coordinator.launched(spec))
    assert (code, text[: len(message)]) == (Status.INVALID_ARGUMENT, message)


async def test_launch_without_a_spec_is_refused_by_field(coordinator: Serving) -> None:
    code, text = await refusal(coordinator.launch.LaunchRun(launch_pb2.LaunchRunRequest(), timeout=SOON))
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith("spec.run_id: ")


async def test_launch_that_is_too_large_is_refused_with_the_limit(
    coordinator: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_SPEC", 10_000)
    code, text = await refusal(coordinator.launched(make_spec(worker_args="x" * 10_000)))
    assert code == Status.RESOURCE_EXHAUSTED
    assert "more than the 10000 that are allowed" in text


async def test_refusal_of_an_enormous_name_is_short_enough_to_arrive(coordinator: Serving) -> None:
    code, text = await refusal(coordinator.launched(make_spec(environment={"ü" * 100_000 + "=": "x"})))
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith("spec.environment: 'ü")


CALLS: dict[str, tuple[Callable[[Serving], Any], str]] = {
    "stop without a run": (lambda it: it.terminated(""), "run_id: is empty"),
    "stop of no run ID": (lambda it: it.terminated("run-1"), "run_id: 'run-1' is not a run ID"),
    "get without a run": (lambda it: it.get(""), "run_id: is empty"),
    "get of no run ID": (lambda it: it.get("x" * 10_000), "run_id: 'xxx"),
    "logs without a run": (lambda it: it.launch.ReadLogs(launch_pb2.ReadLogsRequest()).read(), "run_id: "),
    "a negative page size": (
        lambda it: it.launch.ListRuns(launch_pb2.ListRunsRequest(page_size=-1)),
        "page_size: is -1; give 1 to 1000, or 0 for 100",
    ),
    "a page size beyond the limit": (
        lambda it: it.launch.ListRuns(launch_pb2.ListRunsRequest(page_size=1_001)),
        "page_size: is 1001",
    ),
    "a page token that is none": (
        lambda it: it.launch.ListRuns(launch_pb2.ListRunsRequest(page_token="next")),
        "page_token: was not returned by ListRuns",
    ),
}


@pytest.mark.parametrize("what", CALLS)
async def test_call_that_cannot_be_right_is_refused_by_field(coordinator: Serving, what: str) -> None:
    call, message = CALLS[what]
    code, text = await refusal(call(coordinator))
    assert (code, text[: len(message)]) == (Status.INVALID_ARGUMENT, message)


async def test_logs_without_a_stream_are_refused_by_field(coordinator: Serving, agent: StubAgent) -> None:
    await coordinator.launched()
    call = coordinator.launch.ReadLogs(launch_pb2.ReadLogsRequest(run_id=RUN_ID))
    assert await refusal(call.read()) == (
        Status.INVALID_ARGUMENT,
        "stream: is not set; give STDOUT or STDERR",
    )


async def test_reporter_without_a_deployment_is_refused_by_field(coordinator: Serving) -> None:
    call = coordinator.launch.FollowReports()
    await call.write(launch_pb2.FollowReportsRequest(reporter="me"))
    code, text = await refusal(call.read())
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith("deployment: is empty in the first message")


HELLOS: dict[str, tuple[Callable[[agent_pb2.Hello], None], str]] = {
    "no node ID": (lambda hello: hello.ClearField("node_id"), "node_id: "),
    "a node ID with a slash": (lambda hello: setattr(hello, "node_id", "a/b"), "node_id: 'a/b'"),
    "a node ID that is too long": (lambda hello: setattr(hello, "node_id", "a" * 129), "node_id: "),
    "no cluster": (lambda hello: hello.ClearField("cluster"), "cluster: "),
    "no installation": (lambda hello: hello.ClearField("installation_id"), "installation_id: must have"),
    "no instance": (lambda hello: hello.ClearField("instance_id"), "instance_id: "),
    "no boot ID": (lambda hello: hello.ClearField("boot_id"), "boot_id: "),
    "a boot ID that is too long": (lambda hello: setattr(hello, "boot_id", "b" * 65), "boot_id: "),
    "a bad label": (lambda hello: hello.offer.labels.update({"a b": "x"}), "offer.labels: key 'a b'"),
}


@pytest.mark.parametrize("what", HELLOS)
async def test_hello_that_cannot_be_right_is_refused_by_field(coordinator: Serving, what: str) -> None:
    spoil, message = HELLOS[what]
    hello = make_hello()
    spoil(hello)
    agent = await coordinator.knock(hello)
    code, text = await refusal(agent.call.read())
    assert (code, text[: len(message)]) == (Status.INVALID_ARGUMENT, message)


async def test_session_that_does_not_begin_with_hello_is_refused(coordinator: Serving) -> None:
    agent = StubAgent(coordinator.channel, make_hello())
    coordinator.agents.append(agent)
    await agent.send(heartbeat=agent_pb2.Heartbeat(sequence=1))
    assert await refusal(agent.call.read()) == (
        Status.INVALID_ARGUMENT,
        "hello: must be the first message of a session",
    )


async def test_session_in_which_nothing_is_said_is_refused(
    coordinator: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runyard.coordinator.grpc.agents.HELLO_WITHIN", 0.05)
    agent = StubAgent(coordinator.channel, make_hello())
    coordinator.agents.append(agent)
    code, _ = await refusal(agent.call.read())
    assert code == Status.INVALID_ARGUMENT
