"""What `deploy/` ships must be accepted by the programs that it is for."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

from runyard.agent.__main__ import main as agent
from runyard.agent.config.agent import AgentSettings
from runyard.common.service.settings import Settings
from runyard.common.service.settings_sources import load_settings
from runyard.coordinator.__main__ import main as coordinator
from runyard.coordinator.config import CoordinatorSettings

ROOT = Path(__file__).parents[1]
SYSTEMD = ROOT / "deploy" / "systemd"
PROGRAMS = {"agent": agent, "coordinator": coordinator}
SETTINGS: dict[str, type[Settings]] = {"agent": AgentSettings, "coordinator": CoordinatorSettings}

OFFERED = re.compile(r"^# ( *\w+:.*)$", re.M)
"""Settings that a file has as comments."""


@pytest.mark.parametrize("role", PROGRAMS)
def test_the_command_of_a_unit_and_its_settings_pass_the_check(role: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SYSTEMD / f"runyard-{role}.service")
    program, command, *arguments = unit["Service"]["ExecStart"].split()
    assert (Path(program).name, command) == ("runyard", role)
    local = [each.replace("/etc/runyard", str(SYSTEMD)) for each in arguments]
    assert PROGRAMS[role]([*local, "--check"]) == 0


@pytest.mark.parametrize("role", SETTINGS)
def test_settings_of_a_unit_are_good_for_several_machines_too(role: str, tmp_path: Path) -> None:
    text = (SYSTEMD / f"{role}.yaml").read_text()
    offered = yaml.safe_load("\n".join(OFFERED.findall(text)))
    file = tmp_path / f"{role}.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(text), **offered}))
    loaded = load_settings(SETTINGS[role], file=file, prefix="NONE", flags={})
    assert all(getattr(loaded, name) for name in offered)
    assert {"tls", "join"} & offered.keys()


def test_the_coordinators_unit_may_write_where_its_settings_say() -> None:
    unit = (SYSTEMD / "runyard-coordinator.service").read_text()
    (directories,) = re.findall(r"^StateDirectory=(.*)$", unit, re.M)
    writable = [f"/var/lib/{name}" for name in directories.split()]
    text = (SYSTEMD / "coordinator.yaml").read_text()
    assert set(re.findall(r"(?:state_directory|ca_directory): (\S+)", text)) == set(writable)


def test_stopping_the_agents_unit_leaves_the_workers_alone() -> None:
    assert "KillMode=process" in (SYSTEMD / "runyard-agent.service").read_text()
