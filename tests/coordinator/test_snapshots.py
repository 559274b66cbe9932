"""Job snapshots: sent once, checked, and kept."""

import hashlib
import zlib
from pathlib import Path

import grpc
import pytest
from coordinator.fleet_building import make_hello
from coordinator.serving import SOON, Serving, StubAgent, make_spec, refusal, run_id, serving

from runyard.coordinator.rpc import snapshots
from runyard.v1 import launch_pb2

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
