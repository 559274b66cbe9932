"""Job snapshots: sent once, checked, and kept."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import pytest
from coordinator.asks.jobs import an_op, snapshot_of
from coordinator.fleet_building import make_hello
from coordinator.serving import SOON, Serving, StubAgent, make_spec, refusal, run_id, serving

from runyard.coordinator.core.asks.snapshot import JobShape
from runyard.coordinator.rpc import snapshots
from runyard.coordinator.rpc.errors import NotFound
from runyard.coordinator.rpc.snapshots import Snapshots
from runyard.v1 import launch_pb2, run_pb2

Status = grpc.StatusCode
PLAIN = b'{"job": "orders"}' * 1_000


def snapshot(plain: bytes = PLAIN) -> launch_pb2.Snapshot:
    return launch_pb2.Snapshot(data=zlib.compress(plain), sha256=hashlib.sha256(plain).hexdigest())


async def launch(
    coordinator: Serving, number: int = 1, given: launch_pb2.Snapshot | None = None
) -> launch_pb2.LaunchRunResponse:
    spec = make_spec(run_id(number), job_snapshot_id="orders-1")
    request = launch_pb2.LaunchRunRequest(spec=spec, snapshot=given)
    return await coordinator.launch.LaunchRun(request, timeout=SOON)


async def test_unknown_snapshot_is_asked_for_and_nothing_is_launched(
    coordinator: Serving, agent: StubAgent
) -> None:
    answer = await launch(coordinator)
    assert (answer.snapshot_needed, answer.HasField("run")) == (True, False)
    assert (await refusal(coordinator.get(run_id(1))))[0] == Status.NOT_FOUND


async def test_launch_goes_through_with_the_snapshot(coordinator: Serving, agent: StubAgent) -> None:
    answer = await launch(coordinator, given=snapshot())
    assert (answer.snapshot_needed, answer.run.run_id) == (False, run_id(1))


async def test_snapshot_is_asked_for_only_once_even_over_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path / "state") as coordinator:
        await coordinator.join()
        await launch(coordinator, 1, snapshot())
        assert not (await launch(coordinator, 2)).snapshot_needed
    async with serving(tmp_path / "state") as coordinator:
        await coordinator.join(make_hello(slots=8))
        assert not (await launch(coordinator, 3)).snapshot_needed


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20], ids=str)
@pytest.mark.parametrize("kind", ["zeros", "noise"])
async def test_whole_snapshot_of_any_size_is_taken(
    coordinator: Serving, agent: StubAgent, size: int, kind: str
) -> None:
    plain = bytes(size) if kind == "zeros" else hashlib.shake_128(b"seed").digest(size)
    assert (await launch(coordinator, given=snapshot(plain))).run.run_id == run_id(1)


def _cut(good: launch_pb2.Snapshot) -> None:
    good.data = good.data[:-1]


def _flip(good: launch_pb2.Snapshot) -> None:
    good.data = good.data[:-2] + bytes([good.data[-2] ^ 1]) + good.data[-1:]


def _mislabel(good: launch_pb2.Snapshot) -> None:
    good.sha256 = hashlib.sha256(b"another").hexdigest()


def _leave_plain(good: launch_pb2.Snapshot) -> None:
    good.data = PLAIN


@pytest.mark.parametrize("spoil", [_cut, _flip, _mislabel, _leave_plain], ids=lambda each: each.__name__)
async def test_damaged_snapshot_is_refused_by_field_and_not_kept(
    coordinator: Serving, agent: StubAgent, spoil: object
) -> None:
    damaged = snapshot()
    spoil(damaged)  # type: ignore[operator]
    code, text = await refusal(launch(coordinator, given=damaged))
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith("snapshot.")
    assert text.endswith("send it again")
    assert (await launch(coordinator)).snapshot_needed


async def test_snapshot_that_is_too_large_says_how_large_it_may_be(
    coordinator: Serving, agent: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOT", 1_000)
    code, text = await refusal(launch(coordinator, given=snapshot(hashlib.shake_128(b"seed").digest(2_000))))
    assert code == Status.RESOURCE_EXHAUSTED
    assert "more than the 1000 allowed" in text


async def test_snapshot_that_swells_beyond_measure_is_refused_before_it_does(
    coordinator: Serving, agent: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOT_PLAIN", 2**20)
    code, text = await refusal(launch(coordinator, given=snapshot(bytes(2**26))))
    assert code == Status.RESOURCE_EXHAUSTED
    assert "decompresses to more than" in text


async def test_launch_that_is_refused_may_still_have_left_its_snapshot(coordinator: Serving) -> None:
    code, _ = await refusal(launch(coordinator, given=snapshot()))
    assert code == Status.FAILED_PRECONDITION  # no node has joined
    await coordinator.join()
    assert not (await launch(coordinator)).snapshot_needed


# What their ops ask for


def ops_snapshot(**tags: str) -> launch_pb2.Snapshot:
    """Of a job with two ops side by side: `train` with these tags, and `score`."""
    ops = [an_op("train", **tags), an_op("score", labels="zone=a|b", memory="2Gi")]
    job = dg.GraphDefinition(name="orders", node_defs=ops).to_job(executor_def=dg.multiprocess_executor)
    return snapshot(snapshot_of(job).encode())


async def launch_ops(coordinator: Serving, given: launch_pb2.Snapshot, **fields: Any) -> run_pb2.Run:
    spec = make_spec(job_snapshot_id="orders-1", **fields)
    request = launch_pb2.LaunchRunRequest(spec=spec, snapshot=given)
    return (await coordinator.launch.LaunchRun(request, timeout=SOON)).run


@pytest.fixture
async def roomy(coordinator: Serving) -> StubAgent:
    """A node with much of everything."""
    hello = make_hello(labels={"zone": "b"})
    hello.offer.resources.update({"cpu": 64_000, "memory": 1 << 40})
    return await coordinator.join(hello)


async def test_a_run_asks_for_what_its_ops_take_together(coordinator: Serving, roomy: StubAgent) -> None:
    run = await launch_ops(coordinator, ops_snapshot(memory="4Gi", labels="zone=b|c"))
    assert dict(run.requirements.resources) == {"memory": 6 << 30, "slots": 1}
    assert list(run.requirements.labels) == ["zone=b"]


async def test_the_run_config_and_the_steps_decide_what_counts(
    coordinator: Serving, roomy: StubAgent
) -> None:
    one = json.dumps({"config": {"max_concurrent": 1}})
    run = await launch_ops(coordinator, ops_snapshot(memory="4Gi"), execution_config_json=one)
    assert run.requirements.resources["memory"] == 4 << 30
    again = make_spec(run_id(2), job_snapshot_id="orders-1", step_keys=["score"])
    assert (await coordinator.launched(again)).requirements.resources["memory"] == 2 << 30


async def test_run_tags_go_before_the_ops(coordinator: Serving, roomy: StubAgent) -> None:
    run = await launch_ops(coordinator, ops_snapshot(cpu="1"), tags={"runyard/memory": "1Gi"})
    assert dict(run.requirements.resources) == {"cpu": 1000, "memory": 1 << 30, "slots": 1}


REFUSED = {
    "a tag that makes no sense": (
        {"memory": "much"},
        "tag runyard/memory of op train: 'much' is not an amount of memory",
    ),
    "ops that contradict each other": (
        {"labels": "zone=c"},
        "tag runyard/labels: op score wants zone=a|b, but op train wants zone=c",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_launch_whose_ops_ask_for_nonsense_is_refused_by_tag_and_op(
    coordinator: Serving, roomy: StubAgent, what: str
) -> None:
    tags, message = REFUSED[what]
    code, text = await refusal(launch_ops(coordinator, ops_snapshot(**tags)))
    assert (code, text[: len(message)]) == (Status.INVALID_ARGUMENT, message)


@pytest.mark.parametrize("config", ["{", "[]", "7"])
async def test_execution_config_that_is_none_is_refused_by_field(
    coordinator: Serving, roomy: StubAgent, config: str
) -> None:
    code, text = await refusal(launch_ops(coordinator, ops_snapshot(cpu="1"), execution_config_json=config))
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith("spec.execution_config_json: is no")


async def test_snapshot_with_tags_that_nobody_can_read_is_refused_and_says_why(
    coordinator: Serving, roomy: StubAgent
) -> None:
    code, text = await refusal(launch_ops(coordinator, snapshot(b'{"runyard/memory": "4Gi"')))
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith("spec.job_snapshot_id: the tags of the ops in snapshot orders-1 cannot be read: ")


async def test_a_snapshot_is_read_once_for_many_launches(
    coordinator: Serving, roomy: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await launch_ops(coordinator, ops_snapshot(memory="4Gi"))
    monkeypatch.setattr(snapshots, "job_shape", None)
    score = make_spec(run_id(2), job_snapshot_id="orders-1", step_keys=["score"])
    assert (await coordinator.launched(score)).requirements.resources["memory"] == 2 << 30
    monkeypatch.setattr(snapshots, "ops_layer", None)
    again = make_spec(run_id(3), job_snapshot_id="orders-1")
    assert (await coordinator.launched(again)).requirements.resources["memory"] == 6 << 30


async def test_what_was_read_longest_ago_is_forgotten_and_read_again(
    coordinator: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "OPS_HELD", 6)  # two snapshots of two ops
    read: list[str] = []
    reader = snapshots._read

    def reading(snapshot_id: str, data: bytes) -> JobShape:
        read.append(snapshot_id)
        return reader(snapshot_id, data)

    monkeypatch.setattr(snapshots, "_read", reading)
    held = Snapshots(coordinator.shell)
    for name in ("a", "b", "c"):
        spec = make_spec(job_snapshot_id=name)
        assert await held.hold(launch_pb2.LaunchRunRequest(spec=spec, snapshot=ops_snapshot(cpu="1")))
    for name in ("a", "b", "a", "c", "a", "b"):
        assert await held.ops_layer(name, ["train"], "")
    assert read == ["a", "b", "c", "b"]


async def test_a_snapshot_that_is_not_held_is_not_found(coordinator: Serving) -> None:
    with pytest.raises(NotFound, match="does not hold the job snapshot orders-1"):
        await Snapshots(coordinator.shell).ops_layer("orders-1", (), "")
