"""Job snapshots: sent once, checked, and kept."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import pytest
from coordinator.fleet_building import make_hello
from coordinator.requirements.jobs import an_op, snapshot_of
from coordinator.serving import SOON, Serving, StubAgent, make_spec, refusal, run_id, serving

from runyard.client.requests import SNAPSHOT_PIECE_BYTES, snapshot_messages
from runyard.coordinator.core.requirements.snapshot import JobShape
from runyard.coordinator.grpc import snapshot_uploads, snapshots
from runyard.coordinator.grpc.errors import NotFound
from runyard.coordinator.grpc.snapshot_uploads import MAX_PIECE
from runyard.coordinator.grpc.snapshots import Snapshots
from runyard.v1 import launch_pb2, run_pb2

Status = grpc.StatusCode
NAME = "orders-1"
PLAIN = b'{"job": "orders"}' * 1_000

Stalled = grpc.aio.StreamUnaryCall[launch_pb2.StoreSnapshotRequest, launch_pb2.StoreSnapshotResponse]


def noise(size: int) -> bytes:
    """Bytes that cannot be compressed."""
    return hashlib.shake_128(b"seed").digest(size)


async def launch(coordinator: Serving, number: int = 1) -> launch_pb2.LaunchRunResponse:
    spec = make_spec(run_id(number), job_snapshot_id=NAME)
    return await coordinator.launch.LaunchRun(launch_pb2.LaunchRunRequest(spec=spec), timeout=SOON)


async def test_unknown_snapshot_is_asked_for_and_nothing_is_launched(
    coordinator: Serving, agent: StubAgent
) -> None:
    answer = await launch(coordinator)
    assert (answer.snapshot_needed, answer.HasField("run")) == (True, False)
    assert (await refusal(coordinator.get(run_id(1))))[0] == Status.NOT_FOUND


async def test_launch_goes_through_once_the_snapshot_is_stored(
    coordinator: Serving, agent: StubAgent
) -> None:
    await coordinator.store_snapshot(NAME, PLAIN)
    answer = await launch(coordinator)
    assert (answer.snapshot_needed, answer.run.run_id) == (False, run_id(1))


async def test_snapshot_is_asked_for_only_once_even_over_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path / "state") as coordinator:
        await coordinator.join()
        assert (await launch(coordinator, 1)).snapshot_needed
        await coordinator.store_snapshot(NAME, PLAIN)
        assert not (await launch(coordinator, 2)).snapshot_needed
    async with serving(tmp_path / "state") as coordinator:
        await coordinator.join(make_hello(slots=8))
        assert not (await launch(coordinator, 3)).snapshot_needed


async def test_storing_a_snapshot_again_changes_nothing(coordinator: Serving, agent: StubAgent) -> None:
    for _ in range(2):
        await coordinator.store_snapshot(NAME, PLAIN)
    assert not (await launch(coordinator)).snapshot_needed


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20], ids=str)
@pytest.mark.parametrize("kind", ["zeros", "noise"])
async def test_whole_snapshot_of_any_size_is_taken(
    coordinator: Serving, agent: StubAgent, size: int, kind: str
) -> None:
    plain = bytes(size) if kind == "zeros" else noise(size)
    await coordinator.store_snapshot(NAME, plain)
    assert (await launch(coordinator)).run.run_id == run_id(1)


Messages = list[launch_pb2.StoreSnapshotRequest]


def _cut(messages: Messages) -> None:
    messages[-1].piece = messages[-1].piece[:-1]


def _flip(messages: Messages) -> None:
    good = messages[-1].piece
    messages[-1].piece = good[:-2] + bytes([good[-2] ^ 1]) + good[-1:]


def _lose_one(messages: Messages) -> None:
    del messages[2]


def _swap_two(messages: Messages) -> None:
    messages[1], messages[2] = messages[2], messages[1]


def _repeat_one(messages: Messages) -> None:
    messages.insert(1, messages[1])


def _mislabel(messages: Messages) -> None:
    messages[0].header.sha256 = hashlib.sha256(b"another").hexdigest()


def _leave_plain(messages: Messages) -> None:
    messages[1:] = [launch_pb2.StoreSnapshotRequest(piece=PLAIN)]


def _send_no_content(messages: Messages) -> None:
    del messages[1:]


DAMAGES = [_cut, _flip, _lose_one, _swap_two, _repeat_one, _mislabel, _leave_plain, _send_no_content]


@pytest.mark.parametrize("spoil", DAMAGES, ids=lambda each: each.__name__.strip("_"))
async def test_damaged_snapshot_is_refused_by_field_and_not_kept(
    coordinator: Serving, agent: StubAgent, spoil: Callable[[Messages], None]
) -> None:
    messages = list(snapshot_messages(NAME, noise(3 * SNAPSHOT_PIECE_BYTES)))
    spoil(messages)
    code, text = await refusal(coordinator.send_snapshot(messages))
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith(("piece: ", "header.sha256: "))
    assert text.endswith("send it again")
    assert (await launch(coordinator)).snapshot_needed


def _send_nothing(messages: Messages) -> None:
    messages.clear()


def _lose_the_header(messages: Messages) -> None:
    del messages[0]


def _send_two_headers(messages: Messages) -> None:
    messages.insert(1, messages[0])


def _send_what_is_none(messages: Messages) -> None:
    messages.append(launch_pb2.StoreSnapshotRequest())


def _name_none(messages: Messages) -> None:
    messages[0].header.job_snapshot_id = ""


def _name_it_at_length(messages: Messages) -> None:
    messages[0].header.job_snapshot_id = "a" * 65


DISORDER: dict[Callable[[Messages], None], str] = {
    _send_nothing: "header: must be the first message",
    _lose_the_header: "header: must be the first message",
    _send_two_headers: "piece: must be in every message after the first",
    _send_what_is_none: "piece: must be in every message after the first",
    _name_none: "header.job_snapshot_id: is empty",
    _name_it_at_length: "header.job_snapshot_id: is longer than 64 characters",
}


@pytest.mark.parametrize("spoil", DISORDER, ids=lambda each: each.__name__.strip("_"))
async def test_messages_in_disorder_are_refused_by_field(
    coordinator: Serving, spoil: Callable[[Messages], None]
) -> None:
    messages = list(snapshot_messages(NAME, PLAIN))
    spoil(messages)
    code, text = await refusal(coordinator.send_snapshot(messages))
    assert (code, text[: len(DISORDER[spoil])]) == (Status.INVALID_ARGUMENT, DISORDER[spoil])


async def test_snapshot_that_is_too_large_is_refused_with_the_limit(
    coordinator: Serving, agent: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_uploads, "MAX_SNAPSHOT", 1_000)
    code, text = await refusal(coordinator.store_snapshot(NAME, noise(2_000)))
    assert code == Status.RESOURCE_EXHAUSTED
    assert "more than the 1000 bytes that are allowed" in text


async def test_piece_that_is_too_large_is_refused_with_the_limit(coordinator: Serving) -> None:
    header, *_ = snapshot_messages(NAME, PLAIN)
    large = launch_pb2.StoreSnapshotRequest(piece=bytes(MAX_PIECE + 1))
    code, text = await refusal(coordinator.send_snapshot([header, large]))
    assert code == Status.RESOURCE_EXHAUSTED
    assert f"more than the {MAX_PIECE} allowed; send smaller ones" in text


async def test_snapshot_that_swells_beyond_measure_is_refused_before_it_does(
    coordinator: Serving, agent: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_uploads, "MAX_SNAPSHOT_PLAIN", 2**20)
    code, text = await refusal(coordinator.store_snapshot(NAME, bytes(2**26)))
    assert code == Status.RESOURCE_EXHAUSTED
    assert "decompresses to more than" in text


async def _stalled(coordinator: Serving) -> Stalled:
    """Somebody who begins to send a snapshot, and then sends nothing more."""
    call = coordinator.launch.StoreSnapshot()
    await call.write(snapshot_messages("other", PLAIN)[0])
    return call


async def test_snapshot_that_does_not_arrive_holds_its_place_for_a_moment_only(
    coordinator: Serving, agent: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_uploads, "WITHIN", 1.0)
    stalled = [await _stalled(coordinator) for _ in range(3)]
    await coordinator.store_snapshot(NAME, PLAIN)  # in line behind the stalled ones
    assert not (await launch(coordinator)).snapshot_needed
    for each in stalled:
        code, text = await refusal(each)
        assert code == Status.UNAVAILABLE
        assert text == "the job snapshot did not arrive within 1 s; send it again"


async def test_caller_that_gives_up_while_waiting_leaves_the_queue(
    coordinator: Serving, agent: StubAgent
) -> None:
    stalled = [await _stalled(coordinator) for _ in range(3)]
    for each in stalled:
        each.cancel()
    await coordinator.store_snapshot(NAME, PLAIN)
    assert not (await launch(coordinator)).snapshot_needed


async def test_stored_snapshot_outlives_a_launch_that_was_refused(coordinator: Serving) -> None:
    await coordinator.store_snapshot(NAME, PLAIN)
    code, _ = await refusal(launch(coordinator))
    assert code == Status.FAILED_PRECONDITION  # no node has joined
    await coordinator.join()
    assert not (await launch(coordinator)).snapshot_needed


# What their ops ask for


def ops_snapshot(**tags: str) -> bytes:
    """Of a job with two ops side by side: `train` with these tags, and `score`."""
    ops = [an_op("train", **tags), an_op("score", labels="zone=a|b", memory="2Gi")]
    job = dg.GraphDefinition(name="orders", node_defs=ops).to_job(executor_def=dg.multiprocess_executor)
    return snapshot_of(job).encode()


async def launch_ops(coordinator: Serving, plain: bytes, **fields: Any) -> run_pb2.Run:
    await coordinator.store_snapshot(NAME, plain)
    return await coordinator.launched(make_spec(job_snapshot_id=NAME, **fields))


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
    again = make_spec(run_id(2), job_snapshot_id=NAME, step_keys=["score"])
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


async def test_snapshot_with_unreadable_tags_is_refused_with_the_reason(
    coordinator: Serving, roomy: StubAgent
) -> None:
    code, text = await refusal(launch_ops(coordinator, b'{"runyard/memory": "4Gi"'))
    assert code == Status.INVALID_ARGUMENT
    assert text.startswith("spec.job_snapshot_id: the tags of the ops in snapshot orders-1 cannot be read: ")


async def test_a_snapshot_is_read_once_for_many_launches(
    coordinator: Serving, roomy: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await launch_ops(coordinator, ops_snapshot(memory="4Gi"))
    monkeypatch.setattr(snapshots, "job_shape", None)
    score = make_spec(run_id(2), job_snapshot_id=NAME, step_keys=["score"])
    assert (await coordinator.launched(score)).requirements.resources["memory"] == 2 << 30
    monkeypatch.setattr(snapshots, "ops_layer", None)
    again = make_spec(run_id(3), job_snapshot_id=NAME)
    assert (await coordinator.launched(again)).requirements.resources["memory"] == 6 << 30


async def test_least_recently_used_snapshot_is_dropped_and_read_again(
    coordinator: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "OPS_CACHED", 6)  # two snapshots of two ops
    read: list[str] = []
    reader = snapshots._read

    def reading(snapshot_id: str, data: bytes) -> JobShape:
        read.append(snapshot_id)
        return reader(snapshot_id, data)

    monkeypatch.setattr(snapshots, "_read", reading)
    held = Snapshots(coordinator.runtime)
    for name in ("a", "b", "c"):
        await coordinator.store_snapshot(name, ops_snapshot(cpu="1"))
    for name in ("a", "b", "a", "c", "a", "b"):
        assert await held.ops_layer(name, ["train"], "")
    assert read == ["a", "b", "c", "b"]


async def test_a_snapshot_that_is_not_held_is_not_found(coordinator: Serving) -> None:
    with pytest.raises(NotFound, match="does not have the job snapshot orders-1"):
        await Snapshots(coordinator.runtime).ops_layer(NAME, (), "")
