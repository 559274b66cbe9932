"""What is tested is what is deployed: both have the versions that the two locks pin."""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SERVICES = ROOT / "deploy" / "requirements.txt"
TOOLS = ROOT / "requirements-dev.txt"
LOCKS = (SERVICES, TOOLS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

PIN = re.compile(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+-]+( ; .+)?( --hash=sha256:[0-9a-f]{64})+")
"""All that a lock may hold: no index, no link, no path, nothing that may be edited in place."""


OURS = ("MAKEFLAGS", "MFLAGS", "VENV", "PYTHON")
"""Variables by which `make test` was told something that is not of interest here."""


def entries(lock: Path) -> list[str]:
    return [" ".join(entry.split()) for entry in lock.read_text().replace("\\\n", " ").splitlines()]


def pins(lock: Path) -> Iterator[tuple[Requirement, str]]:
    """What a lock names, each with the one version."""
    for entry in entries(lock):
        requirement = Requirement(entry.partition(" --hash")[0])
        (specifier,) = requirement.specifier
        yield requirement, specifier.version


def locked(*locks: Path) -> dict[str, set[str]]:
    """By name, the versions that locks give this Python on this machine."""
    versions: dict[str, set[str]] = {}
    for lock in locks:
        for requirement, pinned in pins(lock):
            if requirement.marker is None or requirement.marker.evaluate():
                versions.setdefault(canonicalize_name(requirement.name), set()).add(pinned)
    return versions


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing(wanted: list[str], versions: dict[str, set[str]]) -> list[str]:
    """Which requirements no lock meets."""
    return [
        entry
        for entry in wanted
        if (requirement := Requirement(entry)).name != PROJECT["project"]["name"]
        and (requirement.marker is None or requirement.marker.evaluate())
        and not any(
            map(requirement.specifier.contains, versions.get(canonicalize_name(requirement.name), ()))
        )
    ]


def installs(target: str) -> list[str]:
    """The commands of a target, and of all that it needs, that install something."""
    environment = {name: text for name, text in os.environ.items() if name not in OURS}
    commands = subprocess.run(
        ["make", "--dry-run", "--always-make", target],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [command for command in commands if re.search(r"\b(pip|uv) (.* )?(install|sync)\b", command)]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_versions_with_hashes_and_names_no_place(lock: Path) -> None:
    assert [entry for entry in entries(lock) if not PIN.fullmatch(entry)] == []


def test_what_is_installed_has_the_version_that_is_locked() -> None:
    assert {name: installed(name) for name in locked(*LOCKS)} == {
        name: pinned for name, (pinned, *_) in locked(*LOCKS).items()
    }


def test_both_locks_give_a_package_the_same_version() -> None:
    assert {name for name, pinned in locked(*LOCKS).items() if len(pinned) > 1} == set()


def test_the_lock_of_the_services_has_all_that_they_and_their_extras_need() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(entry for extra in extras for entry in extra)]
    assert missing(wanted, locked(SERVICES)) == [], "run `make lock`"


def test_the_lock_of_the_tools_has_every_group_and_what_builds_runyard() -> None:
    groups = PROJECT["dependency-groups"].values()
    wanted = [*PROJECT["build-system"]["requires"], *(entry for group in groups for entry in group)]
    assert missing(wanted, locked(TOOLS)) == [], "run `make lock`"


@pytest.mark.parametrize("target", ["test", "fuzz", "sbom", "check-lock"])
def test_make_installs_nothing_but_what_is_locked_and_runyard_itself(target: str) -> None:
    commands = installs(target)
    assert any("--require-hashes" in command for command in commands)
    assert [each for each in commands if "--require-hashes" not in each and "--no-deps" not in each] == []


def test_make_takes_both_locks_at_once_and_builds_with_what_they_hold() -> None:
    take, build = installs(".venv/.installed")
    for lock in LOCKS:
        assert f"--requirement {lock.relative_to(ROOT)}" in take
    assert "--no-build-isolation" in build
