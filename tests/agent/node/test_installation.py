"""The agent's state directory: one agent at a time, and one name for ever."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runyard.agent.node.installation import Installation, StateError


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


def test_name_is_made_once_and_kept(state: Path) -> None:
    names = set()
    for _ in range(3):
        installation = Installation(state)
        names.add(installation.id)
        installation.release()
    assert len(names) == 1
    assert 0 < len(names.pop()) <= 64


def test_each_directory_has_a_name_of_its_own(tmp_path: Path) -> None:
    first, second = Installation(tmp_path / "a"), Installation(tmp_path / "b")
    assert first.id != second.id
    first.release()
    second.release()


def test_name_that_a_crash_left_empty_is_made_anew(state: Path) -> None:
    Installation(state).release()
    (state / "installation").write_text("\n")
    installation = Installation(state)
    assert installation.id
    assert (state / "installation").read_text() == installation.id
    installation.release()


def test_second_agent_on_one_directory_is_refused_until_the_first_has_left(state: Path) -> None:
    first = Installation(state)
    with pytest.raises(StateError, match="in use by another agent; stop that one first"):
        Installation(state)
    first.release()
    Installation(state).release()


def test_directory_is_free_again_when_its_agent_was_killed(state: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from runyard.agent.node.installation import Installation;"
        "Installation(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateError, match="in use by another agent"):
            Installation(state)
        holder.kill()
        holder.wait()
        Installation(state).release()


def test_new_directory_belongs_to_its_user_alone(state: Path) -> None:
    Installation(state).release()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_directory_that_others_can_enter_is_refused_with_the_remedy(state: Path) -> None:
    state.mkdir(parents=True)
    state.chmod(0o750)
    with pytest.raises(StateError, match=rf"can be entered by others .*`chmod 700 {state}`"):
        Installation(state)
    state.chmod(0o700)
    Installation(state).release()


def test_file_in_place_of_the_directory_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    with pytest.raises(StateError, match=f"state_directory {path} cannot be used .*choose another"):
        Installation(path)


def test_full_disk_is_refused_with_a_remedy_and_is_no_trouble_later(small_disk: Path) -> None:
    state = small_disk / "state"
    state.mkdir(mode=0o700)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4_096))
    with pytest.raises(StateError, match=r"No space left on device.*free some space"):
        Installation(state)
    filler.unlink()
    installation = Installation(state)
    assert installation.id
    installation.release()
