"""What `deploy/` ships must be accepted by the programs that it is for."""

import configparser
from pathlib import Path

import pytest

from runyard.agent.__main__ import main as agent
from runyard.coordinator.__main__ import main as coordinator

SYSTEMD = Path(__file__).parents[1] / "deploy" / "systemd"
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
