"""When a node is too short of something for new runs, and how it is measured."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.pressure import PressureSettings
from runyard.agent.core.pressure import RELIEF, Pressures, Room, Scarce, Thresholds
from runyard.agent.node.cgroups import Rooms, own_rooms
from runyard.agent.node.pressure import PressureMonitor, in_words, rooms_left
from runyard.agent.session.conversions import pressure_of
from runyard.v1 import fleet_pb2

GIB = 1 << 30
TIGHT = Thresholds({Scarce.MEMORY: 100}, recovery_period=30.0)


def memory(left: int, total: int = 1000) -> dict[Scarce, Room]:
    return {Scarce.MEMORY: Room(left, total)}


def short_of(pressures: Pressures) -> list[Scarce]:
    return [each.scarce for each in pressures.all()]


def test_pressure_begins_at_once_and_ends_when_there_has_been_enough_for_a_while() -> None:
    pressures = Pressures(TIGHT)
    pressures.on_measured(0.0, memory(100))
    assert short_of(pressures) == []
    pressures.on_measured(1.0, memory(99))
    assert short_of(pressures) == [Scarce.MEMORY]
    pressures.on_measured(2.0, memory(125))
    pressures.on_measured(31.9, memory(125))
    assert short_of(pressures) == [Scarce.MEMORY]
    pressures.on_measured(32.0, memory(125))
    assert short_of(pressures) == []


@pytest.mark.parametrize("relapse", [99, 124], ids=["short again", "not quite enough"])
def test_relapse_has_the_wait_begin_anew(relapse: int) -> None:
    pressures = Pressures(TIGHT)
    for now, left in [(0.0, 50), (10.0, 500), (30.0, relapse), (35.0, 500), (64.0, 500)]:
        pressures.on_measured(now, memory(left))
    assert short_of(pressures) == [Scarce.MEMORY]
    pressures.on_measured(65.0, memory(500))
    assert short_of(pressures) == []


def test_what_was_not_measured_stays_as_it_was() -> None:
    pressures = Pressures(TIGHT)
    pressures.on_measured(0.0, memory(1))
    pressures.on_measured(100.0, {})
    assert short_of(pressures) == [Scarce.MEMORY]


def test_owner_may_have_nothing_minded() -> None:
    pressures = Pressures(Thresholds({Scarce.DISK: 0}))
    pressures.on_measured(0.0, {Scarce.DISK: Room(0, GIB)})
    assert short_of(pressures) == []


@pytest.mark.parametrize(
    ("scarce", "total", "bound"),
    [
        (Scarce.MEMORY, 8 * GIB, 8 * GIB // 40),
        (Scarce.MEMORY, 512 * GIB, GIB // 2),
        (Scarce.DISK, 10 * GIB, GIB // 2),
        (Scarce.DISK, 1000 * GIB, GIB),
        (Scarce.PIDS, 4_194_304, 1_000),
    ],
)
def test_bound_is_a_share_of_small_machines_and_an_amount_on_large_ones(
    scarce: Scarce, total: int, bound: int
) -> None:
    pressures = Pressures(Thresholds())
    pressures.on_measured(0.0, {scarce: Room(bound, total)})
    assert short_of(pressures) == []
    pressures.on_measured(0.0, {scarce: Room(bound - 1, total)})
    assert short_of(pressures) == [scarce]


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 300)), max_size=40))
def test_pressure_follows_need_and_never_flutters(steps: list[tuple[float, int]]) -> None:
    pressures = Pressures(TIGHT)
    now, enough_since = 0.0, None
    for pause, left in steps:
        now += pause
        before = bool(pressures.all())
        pressures.on_measured(now, memory(left))
        if left < 100:
            assert pressures.all()
        if left < 100 * RELIEF:
            enough_since = None
        elif enough_since is None:
            enough_since = now
        if before and not pressures.all():
            assert enough_since is not None
            assert now - enough_since >= TIGHT.recovery_period


# What is measured


def test_machine_has_room_and_says_how_much(tmp_path: Path) -> None:
    rooms = rooms_left(tmp_path)
    assert set(rooms) == set(Scarce)
    for room in rooms.values():
        assert 0 < room.left <= room.total


def test_full_disk_is_noticed(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(os.urandom(1000 << 10))
    room = rooms_left(small_disk)[Scarce.DISK]
    assert room.left < room.total // 20


@pytest.mark.parametrize(
    ("membership", "files", "rooms"),
    [
        pytest.param("0::/a", {}, Rooms(None, None), id="no limits"),
        pytest.param(
            "0::/a",
            {
                "a/memory.max": "1000",
                "a/memory.current": "900",
                "a/memory.stat": "anon 500\ninactive_file 300\n",
                "a/pids.max": "max",
                "pids.max": "100",
                "pids.current": "40",
            },
            Rooms(Room(400, 1000), Room(60, 100)),
            id="version 2",
        ),
        pytest.param(
            "4:memory:/a\n8:pids:/a",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "5000",
                "memory/a/memory.limit_in_bytes": "1000",
                "memory/a/memory.usage_in_bytes": "900",
                "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 200",
                "pids/a/pids.max": "10",
                "pids/a/pids.current": "12",
            },
            Rooms(Room(300, 1000), Room(0, 10)),
            id="version 1",
        ),
    ],
)
def test_groups_leave_what_they_say(
    tmp_path: Path, membership: str, files: dict[str, str], rooms: Rooms
) -> None:
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert own_rooms(tmp_path / "cgroup", tmp_path / "mount") == rooms


# The watch, and what is told


async def test_watch_tells_what_is_short_in_words(tmp_path: Path) -> None:
    watch = PressureMonitor(
        PressureSettings.model_validate({"disk": "1Gi"}),
        tmp_path,
        lambda state: {Scarce.DISK: Room(GIB // 2, 10 * GIB)},
    )
    await watch.check()
    (pressure,) = watch.all()
    assert in_words(pressure) == (
        "512Mi of 10Gi of the state directory's disk left; new runs are accepted with 1280Mi"
    )
    assert pressure_of(pressure).kind == fleet_pb2.PRESSURE_KIND_DISK


async def test_measurement_that_fails_changes_nothing(tmp_path: Path) -> None:
    watch = PressureMonitor(PressureSettings(), tmp_path / "gone")
    await watch.check()
    assert watch.all() == []


@pytest.mark.parametrize("section", [{"memory": "much"}, {"calm": -1}, {"swap": 1}])
def test_settings_that_cannot_be_are_refused_by_name(section: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(section))):
        AgentSettings.model_validate({"pressure": section})
