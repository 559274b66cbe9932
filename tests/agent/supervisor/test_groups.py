"""What is written to control groups, and read from them, of the version that this machine may lack."""

from pathlib import Path

import pytest

from runyard.agent.supervisor.limits.groups import Group

FILES = {
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.oom.group": "0",
    "cpu.max": "max 100000",
    "cgroup.procs": "",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 0\noom_group_kill 0\n",
    "memory.peak": "123456\n",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the kernel would make in a new group of version 2."""
    made = tmp_path / "run-a-1"
    mkdir = Path.mkdir

    def as_the_kernel(path: Path) -> None:
        mkdir(path)
        for name, content in FILES.items():
            (path / name).write_text(content)

    monkeypatch.setattr(Path, "mkdir", as_the_kernel)
    return made


def written(home: Path, name: str) -> str:
    """The start of a file: a file of a disk keeps the rest of what was longer."""
    return (home / name).read_text()


def test_limits_of_version_2_end_the_whole_group_and_leave_no_way_out_by_swapping(home: Path) -> None:
    group = Group([home])
    group.make(memory=64 << 20, cpu=1500)
    assert written(home, "memory.max") == str(64 << 20)
    assert written(home, "memory.swap.max").startswith("0")
    assert written(home, "cpu.max").startswith("150000 100000")
    assert group.ends_as_one
    group.take_in(4711)
    assert group.members() == {4711}


def test_without_a_limit_on_memory_nothing_is_written_about_it(home: Path) -> None:
    Group([home]).make(memory=0, cpu=1)
    assert written(home, "memory.max") == "max"
    assert written(home, "cpu.max").startswith("1000 100000")  # the least that the kernel takes


def test_kills_and_peak_are_read_as_the_kernel_writes_them(home: Path) -> None:
    group = Group([home])
    group.make(memory=64 << 20, cpu=0)
    assert (group.kills(), group.peak()) == (0, 123456)
    (home / "memory.events").write_text("oom 2\noom_kill 3\noom_group_kill 1\n")
    assert group.kills() == 3


def test_a_group_that_the_kernel_refuses_is_not_left_half_made(tmp_path: Path) -> None:
    group = Group([tmp_path / "memory", tmp_path / "missing" / "cpu"])
    with pytest.raises(FileNotFoundError):
        group.make(memory=64 << 20, cpu=0)
    assert not group.is_there
    assert list(tmp_path.iterdir()) == []
