"""`runyard signing-key`: making and showing the keys that sign launches."""

import importlib.util
import stat
from pathlib import Path

import pytest
from cli.commands import Command

from runyard.common.security.signing import PRIVATE_KEY, PUBLIC_KEY, read_public_key, read_signing_key


def test_a_key_is_made_in_two_files_of_which_one_is_for_its_owner_alone(
    runyard: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    made = runyard("signing-key", "create", str(folder), "-o", "json")
    assert made.code == 0
    private, public = folder / PRIVATE_KEY, folder / PUBLIC_KEY
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    key = read_public_key(str(public))
    assert made.json() == {
        "private_key_file": str(private),
        "public_key_file": str(public),
        "key_id": key.key_id,
        "public_key": str(key),
    }
    signer = read_signing_key(private)
    assert key.has_signed(b"text", signer.sign(b"text"))
    assert not key.has_signed(b"another", signer.sign(b"text"))
    assert "PRIVATE" not in made.out
    assert repr(signer) == "SigningKey()"


def test_no_key_is_overwritten(runyard: Command, tmp_path: Path) -> None:
    assert runyard("signing-key", "create", str(tmp_path)).code == 0
    before = (tmp_path / PRIVATE_KEY).read_bytes()
    again = runyard("signing-key", "create", str(tmp_path))
    assert again.code == 1
    assert again.err == f"runyard: {tmp_path / PRIVATE_KEY} is there already; choose another directory\n"
    assert (tmp_path / PRIVATE_KEY).read_bytes() == before


@pytest.mark.parametrize("name", [PRIVATE_KEY, PUBLIC_KEY, "."])
def test_the_public_half_is_shown_of_either_file_and_of_the_directory(
    runyard: Command, tmp_path: Path, name: str
) -> None:
    made = runyard("signing-key", "create", str(tmp_path))
    assert runyard("signing-key", "show", str(tmp_path / name)).out.splitlines() == made.out.splitlines()[2:]


def test_a_private_key_that_others_may_read_is_refused_with_the_remedy(
    runyard: Command, tmp_path: Path
) -> None:
    runyard("signing-key", "create", str(tmp_path))
    key = tmp_path / PRIVATE_KEY
    key.chmod(0o640)
    shown = runyard("signing-key", "show", str(key))
    assert shown.code == 1
    assert shown.err == f"runyard: {key} has mode 0640, too open for a key: chmod 600 {key}\n"


@pytest.mark.parametrize("text", ["", "nonsense", "ed25519:short", "-----BEGIN NOTHING-----", "rsa:AAAA"])
def test_what_is_no_key_is_called_so(runyard: Command, tmp_path: Path, text: str) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    file.chmod(0o600)
    shown = runyard("signing-key", "show", str(file))
    assert shown.code == 1
    assert str(file) in shown.err
    assert "signing-key" in shown.err


def test_a_file_that_is_not_there_is_named(runyard: Command, tmp_path: Path) -> None:
    shown = runyard("signing-key", "show", str(tmp_path / "none"))
    assert (shown.code, shown.err) == (
        1,
        f"runyard: {tmp_path / 'none'}: cannot be read (No such file or directory); check the path\n",
    )


def test_without_the_package_the_remedy_is_named(
    runyard: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    made = runyard("signing-key", "create", str(tmp_path))
    assert made.code == 1
    assert "pip install 'runyard[signing]'" in made.err
