"""What `deploy/` ships must be accepted by the programs that it is for."""

import configparser
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from runyard.agent.__main__ import main as agent
from runyard.coordinator.__main__ import main as coordinator

ROOT = Path(__file__).parents[1]
SYSTEMD = ROOT / "deploy" / "systemd"
PROGRAMS = {"agent": agent, "coordinator": coordinator}


@pytest.mark.parametrize("role", PROGRAMS)
def test_the_command_of_a_unit_and_its_settings_pass_the_check(role: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SYSTEMD / f"runyard-{role}.service")
    program, command, *arguments = unit["Service"]["ExecStart"].split()
    assert (Path(program).name, command) == ("runyard", role)
    local = [each.replace("/etc/runyard", str(SYSTEMD)) for each in arguments]
    assert PROGRAMS[role]([*local, "--check"]) == 0


def test_stopping_the_agents_unit_leaves_the_workers_alone() -> None:
    assert "KillMode=process" in (SYSTEMD / "runyard-agent.service").read_text()


def locked() -> dict[str, Requirement]:
    """What is pinned, by name; each with a hash at least."""
    entries = (ROOT / "deploy" / "requirements.txt").read_text().replace("\\\n", " ").splitlines()
    pinned = {}
    for entry in entries:
        requirement, *hashes = entry.split("--hash=sha256:")
        assert hashes, entry
        parsed = Requirement(requirement)
        pinned[parsed.name] = parsed
    return pinned


def test_all_that_the_services_need_is_pinned_with_hashes_to_a_version_that_they_take() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(entry for extra in extras.values() for entry in extra)]
    pinned = locked()
    for entry in map(Requirement, needed):
        if entry.name == "runyard":
            continue
        (pin,) = pinned[entry.name].specifier
        assert pin.operator == "=="
        assert entry.specifier.contains(pin.version), f"run `make lock`: {entry} is pinned to {pin.version}"
