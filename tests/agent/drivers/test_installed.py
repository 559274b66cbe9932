"""Which Dagster an interpreter has, found without starting it."""

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from runyard.agent.drivers.process.installed import LEAST, InstalledDagster

ROOT = Path(__file__).parents[3]
NOTHING: Mapping[str, str] = {}


class Environment:
    """A virtual environment as far as it matters: its settings and its packages."""

    def __init__(self, home: Path, settings: str = "version = 3.12.1\n") -> None:
        self.packages = home / "lib/python3.12/site-packages"
        self.packages.mkdir(parents=True)
        (home / "bin").mkdir()
        (home / "pyvenv.cfg").write_text(f"home = /usr/bin\n{settings}")
        self.python = str(home / "bin/python")
        Path(self.python).symlink_to(sys.executable)

    def install(self, distribution: str) -> None:
        """Puts there what an installer would, as far as it matters."""
        (self.packages / "dagster").mkdir(exist_ok=True)
        (self.packages / f"{distribution}.dist-info").mkdir()

    def trouble(self, environment: Mapping[str, str] = NOTHING) -> str:
        return InstalledDagster().trouble(self.python, environment)


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "env")


def test_the_environment_of_these_tests_is_good() -> None:
    assert InstalledDagster().trouble(sys.executable, NOTHING) == ""


def test_the_least_version_is_that_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["dagster"] == [f"dagster>={LEAST[0]}.{LEAST[1]}"]


@pytest.mark.parametrize("version", ["1.9.0", "1.13.27", "1.9.0rc1", "2.0", "1!0+dev", "1.10.0.post1"])
def test_what_is_supported_is_good(env: Environment, version: str) -> None:
    env.install(f"dagster-{version}")
    assert env.trouble() == ""


@pytest.mark.parametrize("version", ["1.8.13", "0.15.0", "1.8.13.post0", "1.8rc2"])
def test_what_is_older_is_named_with_the_remedy(env: Environment, version: str) -> None:
    env.install(f"dagster-{version}")
    assert env.trouble() == (
        f"Dagster {version} of {env.python} is too old: "
        "Runyard supports 1.9 and newer; upgrade it on this node"
    )


def test_no_dagster_at_all_is_told_with_the_remedy(env: Environment) -> None:
    env.install("dagster_graphql-1.13.0")
    (env.packages / "dagster").rmdir()
    (env.packages / "distutils-precedence.pth").write_text("import os; os")
    (env.packages / "lib.pth").write_text("/nowhere\n# a comment\n\n")
    assert env.trouble() == (
        f"{env.python} has no Dagster in {env.packages}; install dagster>=1.9 there on this node"
    )


def test_of_an_upgrade_that_was_broken_off_the_newer_half_counts(env: Environment) -> None:
    env.install("dagster-1.8.13")
    env.install("dagster-1.13.0")
    assert env.trouble() == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dagster.egg-link", "/src"),
        ("__editable__.dagster-1.0.pth", "import x"),
        ("company.pth", "import company_paths"),
        ("dagster", ""),
    ],
)
def test_dagster_that_may_come_in_another_way_is_given_the_benefit_of_the_doubt(
    env: Environment, name: str, content: str
) -> None:
    (env.packages / name).write_text(content)
    assert env.trouble() == ""


def test_a_folder_that_a_path_file_adds_may_have_dagster(env: Environment, tmp_path: Path) -> None:
    (env.packages / "shared.pth").write_text(f"{tmp_path / 'shared'}\n")
    assert "no Dagster" in env.trouble()
    (tmp_path / "shared/dagster").mkdir(parents=True)
    assert env.trouble() == ""


def test_packages_of_the_system_may_have_dagster(tmp_path: Path) -> None:
    settings = "version_info = 3.12.1\ninclude-system-site-packages = true\n"
    env = Environment(tmp_path / "env", settings)
    assert env.trouble() == ""
    env.install("dagster-1.7.0")  # in front of those of the system
    assert "1.7.0" in env.trouble()


def test_the_workers_own_search_path_may_have_dagster(env: Environment) -> None:
    assert env.trouble({"PYTHONPATH": "/src"}) == ""


def test_outside_of_virtual_environments_only_a_version_that_is_found_counts(tmp_path: Path) -> None:
    python = tmp_path / "bin/python3.12"
    python.parent.mkdir()
    python.touch()
    packages = tmp_path / "lib/python3.12/site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "bin/python3").symlink_to("python3.12")
    assert InstalledDagster().trouble(str(tmp_path / "bin/python3"), NOTHING) == ""
    (packages / "dagster-1.6.0.dist-info").mkdir()
    assert "Dagster 1.6.0" in InstalledDagster().trouble(str(tmp_path / "bin/python3"), NOTHING)


@pytest.mark.parametrize("python", ["python3", "/nowhere/bin/python3"])
def test_of_an_interpreter_that_is_not_found_nothing_is_said(python: str) -> None:
    assert InstalledDagster().trouble(python, NOTHING) == ""


def test_packages_are_listed_once_until_they_change(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []
    listdir = os.listdir

    def listing(path: Path) -> list[str]:
        listed.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listing)
    installed = InstalledDagster()
    assert [bool(installed.trouble(env.python, NOTHING)) for _ in range(3)] == [True] * 3
    assert listed == [env.packages]
    env.install("dagster-1.13.0")
    os.utime(env.packages, ns=(1, 1))  # however coarse the clock of the disk
    assert installed.trouble(env.python, NOTHING) == ""
    assert len(listed) == 2
